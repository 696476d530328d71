"""HTTP: the public wire formats, the app's own interface, and what keeps a server up."""

from rorqual.server.admin_app import create_admin_app
from rorqual.server.application import create_app
from rorqual.server.models import Models, open_models
from rorqual.server.pairing import Pairing, certificate, network_address
from rorqual.server.services import Asker, Services

__all__ = [
    "Asker",
    "Models",
    "Pairing",
    "Services",
    "certificate",
    "create_admin_app",
    "create_app",
    "network_address",
    "open_models",
]
