"""Who is asking: keys for the wire formats, session cookies for the app, nobody in local mode."""

import functools
import hashlib
from collections.abc import Mapping

from starlette.requests import Request

from rorqual.platform import NotAllowed, NotAuthenticated, User
from rorqual.server.deadlines import wanted_seconds
from rorqual.server.services import Asker, Services

COOKIE = "rorqual"
SECURE_COOKIE = "__Host-rorqual"
CHANGE_HEADER = "x-rorqual"
# In a scope:
HEADERS = "rorqual.headers"  # by their names in lower case
ROOM_FOR = "rorqual.room_for"  # the account that admission has been asked about


def address_of(request: Request) -> str:
    """The client's address; behind a trusted proxy, the one that the proxy names."""
    return request.scope["rorqual.address"]


async def asker_of(services: Services, request: Request, *, reserves: bool = False) -> Asker:
    """Whose key a request carries; in local mode the one user's.

    reserves: what follows does nothing before its reservation, which fails for a key that is not
    good any more; so one that was good lately is not looked up.

    A request for an answer that has no place anyway, and that the door could not tell, is refused
    here, before it is read.
    """
    _check_room(services, request)
    headers: Mapping[str, str] = request.scope[HEADERS]
    address, deadline = address_of(request), wanted_seconds(headers)
    if services.is_local:
        return Asker(services.local_user, None, address, deadline)
    key = key_in(headers)
    if key is None:
        raise NotAuthenticated(
            "no API key; send it as Authorization: Bearer KEY", code="invalid_api_key"
        )
    keys = services.platform.keys
    caller = services.known_keys.caller_of(key) if reserves else None
    if caller is None:
        caller = await services.look_up(keys.authenticate, key)
        services.known_keys.note(key, caller)
    else:
        keys.use(caller.key)
    return Asker(caller.user, caller.key, address, deadline)


async def session_user(services: Services, request: Request) -> User | None:
    """Who is logged in, None if nobody; in local mode the one user."""
    if services.is_local:
        return services.local_user
    token = session_token(request)
    if token is None:
        return None
    try:
        return await services.call(services.platform.accounts.session, token)
    except NotAuthenticated:
        return None


async def app_asker(services: Services, request: Request) -> Asker:
    """Who is logged in; NotAuthenticated if nobody."""
    user = await session_user(services, request)
    if user is None:
        raise NotAuthenticated("log in first", code="no_session")
    return Asker(user, None, address_of(request))


async def admin_asker(services: Services, request: Request) -> Asker:
    """An administrator who is logged in."""
    asker = await app_asker(services, request)
    if asker.user.role != "admin":
        raise NotAllowed("this needs the role admin")
    return asker


def session_token(request: Request) -> str | None:
    """The session cookie; with TLS only the one that browsers accept with TLS alone."""
    name = SECURE_COOKIE if request.scope["rorqual.secure"] else COOKIE
    return request.cookies.get(name)


def cache_salt(services: Services, asker: Asker, user_id: str | None) -> bytes:
    """Prefixes are shared within an account and its user_id only: their timing tells on others."""
    if services.is_local and user_id is None:
        return b""
    return _salt_of(asker.user.id, user_id or "")


@functools.lru_cache(maxsize=4096)
def _salt_of(account_id: str, user_id: str) -> bytes:
    named = f"{account_id}\0{user_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(named, digest_size=16).digest()


def _check_room(services: Services, request: Request) -> None:
    """Raises what admission would say to any request of this account, if it is known, and if
    there is reason to ask."""
    scope, admission = request.scope, services.platform.admission
    if admission.is_calm or not scope["rorqual.generates"]:
        return
    if ROOM_FOR in scope:
        scope["rorqual.user_id"] = scope[ROOM_FOR]
        return
    account_id = known_account(services, scope[HEADERS])
    if account_id is not None:
        scope["rorqual.user_id"] = account_id
        admission.check(account_id, address_of(request))


def known_account(services: Services, headers: Mapping[str, str]) -> str | None:
    """Whose request this is, if that is known without asking the database. To refuse by, never to
    let in: a key may have been revoked."""
    if services.is_local:
        return services.local_user.id
    key = key_in(headers)
    return None if key is None else services.known_keys.account_of(key)


def key_in(headers: Mapping[str, str]) -> str | None:
    """The API key that a request carries, in either of the usual places. Names are lower case."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    bearer = key.strip() if kind.lower() == "bearer" and key else None
    return bearer or headers.get("x-api-key")
