"""Keys, usage and balance of the user who is logged in; and what administrators may do."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from rorqual.errors import RequestError
from rorqual.platform import ApiKey, User
from rorqual.platform.accounts import normal_name
from rorqual.server.app.account_api import LEVEL_NAMES, LEVELS
from rorqual.server.app.bodies import KeyBody, LevelBody, TopUpBody, UserBody
from rorqual.server.endpoints import Endpoint
from rorqual.server.identity import admin_asker, app_asker
from rorqual.server.replies import json_reply
from rorqual.server.services import Services
from rorqual.server.times import from_iso, iso
from rorqual.server.wire.fields import FieldTable, read_json

_KEYS: Final = FieldTable(KeyBody)
_USERS: Final = FieldTable(UserBody)
_TOPUPS: Final = FieldTable(TopUpBody)
_LEVELS: Final = FieldTable(LevelBody)
_MAX_KEYS: Final = 100
_MAX_DAYS: Final = 366


class MoneyApi:
    """Handlers of /api/keys, /api/usage, /api/balance and /api/admin."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._platform = services.platform

    def endpoints(self) -> list[Endpoint]:
        """Their routes."""
        days = {"days": {"type": "integer", "minimum": 1, "maximum": _MAX_DAYS}}
        words = {"query": {"type": "string"}}
        user = "/api/admin/users/{id}"
        return [
            Endpoint("GET", "/api/keys", self.keys, "Your keys."),
            Endpoint(
                "POST", "/api/keys", self.make_key, "A new key.", KeyBody, status=201, errors=(404,)
            ),
            Endpoint("DELETE", "/api/keys/{id}", self.revoke_key, "Revokes at once.", status=204),
            Endpoint("GET", "/api/usage", self.usage, "By day, model and key.", query=days),
            Endpoint("GET", "/api/balance", self.balance, "What is left."),
            Endpoint("GET", "/api/admin/overview", self.overview, "Load and accounts."),
            Endpoint("POST", "/api/admin/level", self.level, "Holds the ladder.", LevelBody),
            Endpoint("GET", "/api/admin/users", self.users, "Accounts.", query=words),
            Endpoint("PATCH", user, self.change_user, "Locks, or gives a role.", UserBody),
            Endpoint("POST", f"{user}/topup", self.top_up, "Adds money.", TopUpBody),
        ]

    async def keys(self, request: Request) -> Response:
        """The user's keys, revoked ones included."""
        asker = await app_asker(self._services, request)
        found = await self._services.call(self._platform.keys.of_user, asker.user.id)
        return json_reply({"keys": [_key(key) for key in found]})

    async def make_key(self, request: Request) -> Response:
        """A new key; its secret is shown this once."""
        asker = await app_asker(self._services, request)
        body, _ = _KEYS.read(read_json(await request.body()))
        models = body.models
        if models is not None:
            models = [self._services.models.name_of(model) for model in models]
        held = await self._services.call(self._platform.keys.of_user, asker.user.id)
        if sum(key.revoked_seconds is None for key in held) >= _MAX_KEYS:
            raise RequestError(f"you have {_MAX_KEYS} keys; revoke one first", code="too_many_keys")
        made = await self._services.call(
            self._platform.keys.create,
            asker.user.id,
            body.name,
            models=models,
            cap_nano=body.cap,
            expires_seconds=None if body.expires is None else from_iso(body.expires, "expires"),
        )
        return json_reply({**_key(made.key), "secret": made.secret}, 201)

    async def revoke_key(self, request: Request) -> Response:
        """Revokes a key from the next request on."""
        asker = await app_asker(self._services, request)
        name = request.path_params["id"]
        await self._services.call(self._platform.keys.revoke, asker.user.id, name)
        return Response(status_code=204)

    async def usage(self, request: Request) -> Response:
        """What the user has used in the last days."""
        asker = await app_asker(self._services, request)
        text = request.query_params.get("days", "30")
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= _MAX_DAYS):
            raise RequestError(f"days: expected 1 to {_MAX_DAYS}", param="days")
        today = datetime.now(UTC).date()
        first = today - timedelta(days=int(text) - 1)
        found = await self._services.call(
            self._platform.usage.by_day, asker.user.id, first.isoformat(), today.isoformat()
        )
        rows = [
            {
                "day": row.day,
                "model": row.model,
                "key_id": row.key_id,
                "requests": row.num_requests,
                "input_tokens": row.counts.input_tokens,
                "cached_tokens": row.counts.cache_hit_tokens,
                "output_tokens": row.counts.output_tokens,
                "reasoning_tokens": row.counts.reasoning_tokens,
                "cost": row.charge_nano,
            }
            for row in found
        ]
        return json_reply({"currency": self._services.config.metering.currency, "rows": rows})

    async def balance(self, request: Request) -> Response:
        """What is left, what is reserved, what was spent."""
        asker = await app_asker(self._services, request)
        found = await self._services.call(self._platform.ledger.balance, asker.user.id)
        today = datetime.now(UTC).date().isoformat()
        rows = await self._services.call(
            self._platform.usage.by_day, asker.user.id, "2000-01-01", today
        )
        return json_reply(
            {
                "currency": found.currency,
                "balance": found.available_nano,
                "reserved": found.reserved_nano,
                "spent": sum(row.charge_nano for row in rows),
            }
        )

    async def overview(self, request: Request) -> Response:
        """Load, queue, engines, accounts and the ladder."""
        await admin_asker(self._services, request)
        stats = self._platform.admission.stats()
        engines = []
        for backend in self._services.models:
            found = backend.stats()
            engines.append(
                {
                    "model": backend.info.name,
                    "state": found.state,
                    "running": found.num_running,
                    "waiting": found.num_waiting,
                    "restarts": found.num_restarts,
                    "last_error": found.last_error,
                }
            )
        held = stats.held_level
        return json_reply(
            {
                "load": round(stats.load, 3),
                "queue": {
                    "running": stats.num_running,
                    "waiting": stats.num_queued,
                    "tokens": stats.queued_tokens,
                    "wait_seconds": round(stats.wait_seconds, 1),
                    "tokens_per_second": round(stats.tokens_per_second, 1),
                },
                "engines": engines,
                "accounts": await self._services.call(self._platform.accounts.count),
                "level": LEVEL_NAMES[stats.level],
                "held_level": None if held is None else LEVEL_NAMES[held],
            }
        )

    async def level(self, request: Request) -> Response:
        """Holds a step of the ladder, or lets load decide."""
        await admin_asker(self._services, request)
        body, _ = _LEVELS.read(read_json(await request.body()))
        held = None if body.level == "auto" else LEVELS[body.level]
        await self._services.call(self._platform.hold_level, held)
        return json_reply({"level": LEVEL_NAMES[self._platform.admission.ladder.level]})

    async def users(self, request: Request) -> Response:
        """Accounts; with a query the one of that name or id."""
        await admin_asker(self._services, request)
        words = request.query_params.get("query", "").strip()
        found = await self._services.call(self._platform.accounts.page, limit=1000)
        if words:
            wanted = normal_name(words)
            found = [user for user in found if wanted in user.name or wanted == user.id.casefold()]
        currency = self._services.config.metering.currency
        return json_reply({"currency": currency, "users": [_user(user) for user in found]})

    async def change_user(self, request: Request) -> Response:
        """Locks a user out or lets it in; gives or takes the role."""
        asker = await admin_asker(self._services, request)
        body, _ = _USERS.read(read_json(await request.body()))
        name, accounts = request.path_params["id"], self._platform.accounts
        if name == asker.user.id:
            raise RequestError("you cannot lock or change yourself; let another administrator")
        user = await self._services.call(accounts.get, name)
        if body.locked is not None:
            user = await self._services.call(accounts.set_locked, name, body.locked)
        if body.role is not None:
            user = await self._services.call(accounts.set_role, name, body.role)
        return json_reply(_user(user))

    async def top_up(self, request: Request) -> Response:
        """Adds money; the same reference again adds nothing."""
        asker = await admin_asker(self._services, request)
        body, _ = _TOPUPS.read(read_json(await request.body()))
        name = request.path_params["id"]
        reference = body.reference or f"topup-{secrets.token_hex(12)}"
        balance = await self._services.call(
            self._platform.ledger.top_up,
            name,
            body.amount,
            reference,
            note=f"by {asker.user.name}",
        )
        return json_reply({"balance": balance})


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "start": "sk-rorqual-",
        "last4": key.hint,
        "created": iso(key.created_seconds),
        "expires": iso(key.expires_seconds),
        "last_used": iso(key.last_used_seconds),
        "models": None if key.models is None else list(key.models),
        "cap": key.cap_nano,
        "spent": key.spent_nano,
        "revoked": key.revoked_seconds is not None,
    }


def _user(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "locked": user.locked,
        "created": iso(user.created_seconds),
        "balance": user.balance_nano,
    }
