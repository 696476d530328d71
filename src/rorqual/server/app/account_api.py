"""Who is asking, registration and login, the state of the service."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rorqual import __version__
from rorqual.errors import RequestError
from rorqual.platform import Level, Login, Proof, User
from rorqual.platform.accounts import normal_name
from rorqual.server.app.bodies import CredentialsBody, ProofBody
from rorqual.server.endpoints import Endpoint
from rorqual.server.identity import (
    COOKIE,
    SECURE_COOKIE,
    address_of,
    session_token,
    session_user,
)
from rorqual.server.replies import json_reply
from rorqual.server.services import Services
from rorqual.server.wire.fields import FieldTable, read_json

LEVEL_NAMES: Final = {
    Level.NORMAL: "normal",
    Level.SHORTER_THINKING: "short_thinking",
    Level.SMALLER_MODEL: "small_model",
    Level.QUEUE_ONLY: "queue_only",
    Level.REGISTRATION_CLOSED: "closed",
}
LEVELS: Final = {name: level for level, name in LEVEL_NAMES.items()}
_CREDENTIALS: Final = FieldTable(CredentialsBody)


class AccountApi:
    """Handlers of /api/me, /api/session and what belongs to them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        """Their routes."""
        purpose = {"for": {"type": "string"}, "name": {"type": "string"}}
        return [
            Endpoint("GET", "/api/me", self.me, "Who asks.", needs_key=False),
            Endpoint("GET", "/api/challenge", self.challenge, "What a login has to solve first.",
                     query=purpose, needs_key=False),
            Endpoint("POST", "/api/register", self.register, "A new account.", CredentialsBody,
                     status=201, errors=(409,), needs_key=False),
            Endpoint("POST", "/api/session", self.login, "Log in.", CredentialsBody,
                     needs_key=False),
            Endpoint("DELETE", "/api/session", self.logout, "Log out.", status=204,
                     needs_key=False),
            Endpoint("GET", "/api/status", self.status, "The service's state.", needs_key=False),
        ]  # fmt: skip

    async def me(self, request: Request) -> Response:
        """The user who is logged in, and what the service allows."""
        return json_reply(self._me(await session_user(self._services, request)))

    async def challenge(self, request: Request) -> Response:
        """A proof of work to solve; difficulty 0 asks for none."""
        self._require_accounts()
        purpose = request.query_params.get("for", "")
        gate = self._services.platform.accounts.gate
        if purpose == "register":
            demand = gate.registration_demand()
        elif purpose == "login":
            name = normal_name(request.query_params.get("name", ""))
            demand = gate.login_demand(name, address_of(request))
        else:
            raise RequestError("for: expected register or login", param="for")
        text = demand.challenge or ""
        return json_reply(
            {
                "algorithm": "sha256",
                "challenge": text,
                "salt": f"{text}:",
                "difficulty": demand.bits,
                "expires": None,
                "signature": text.rpartition(".")[2],
            }
        )

    async def register(self, request: Request) -> Response:
        """A new account, logged in."""
        self._require_accounts()
        body, _ = _CREDENTIALS.read(read_json(await request.body()))
        platform = self._services.platform
        user = await self._services.call(
            platform.register,
            body.name,
            body.password,
            address=address_of(request),
            proof=_proof(body.proof),
        )
        login = await self._services.call(platform.accounts.open_session, user.id)
        return self._logged_in(request, login, 201)

    async def login(self, request: Request) -> Response:
        """A session for a name and a password."""
        self._require_accounts()
        body, _ = _CREDENTIALS.read(read_json(await request.body()))
        login = await self._services.call(
            self._services.platform.accounts.login,
            body.name,
            body.password,
            address=address_of(request),
            proof=_proof(body.proof),
        )
        return self._logged_in(request, login, 200)

    async def logout(self, request: Request) -> Response:
        """The session ends; without one nothing happens."""
        token = session_token(request)
        if token is not None and not self._services.is_local:
            await self._services.call(self._services.platform.accounts.logout, token)
        reply = Response(status_code=204)
        secure = request.scope["rorqual.secure"]
        reply.delete_cookie(
            SECURE_COOKIE if secure else COOKIE, secure=secure, httponly=True, samesite="strict"
        )
        return reply

    async def status(self, request: Request) -> Response:
        """The engine and the queue, for everyone."""
        services = self._services
        state = services.models.get(services.models.default).stats().state
        stats = services.platform.admission.stats()
        return json_reply(
            {
                "engine": state,
                "running": stats.num_running,
                "waiting": stats.num_queued,
                "level": LEVEL_NAMES[stats.level],
                "tokens_per_second": round(stats.tokens_per_second, 2),
            }
        )

    def _me(self, user: User | None) -> dict[str, object]:
        services = self._services
        ladder = services.platform.admission.ladder
        is_open = services.config.accounts.registration == "open" and ladder.registration_open
        found = None if user is None else {"id": user.id, "name": user.name, "role": user.role}
        return {
            "mode": services.config.mode,
            "user": found,
            "registration": "open" if is_open and not services.is_local else "closed",
            "version": __version__,
            "level": LEVEL_NAMES[ladder.level],
        }

    def _logged_in(self, request: Request, login: Login, status: int) -> Response:
        reply = json_reply(self._me(login.user), status)
        secure = request.scope["rorqual.secure"]
        reply.set_cookie(
            SECURE_COOKIE if secure else COOKIE,
            login.token,
            max_age=int(self._services.config.accounts.session_days * 86_400),
            path="/",
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return reply

    def _require_accounts(self) -> None:
        if self._services.is_local:
            raise RequestError(
                'this server runs in local mode, without accounts; set mode = "platform"',
                code="local_mode",
            )


def _proof(body: ProofBody | None) -> Proof | None:
    return None if body is None else Proof(body.challenge, str(body.number))
