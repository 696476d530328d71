"""Text to batches: corpora with a manifest, token shards, best-fit packing, a resumable loader."""

from rorqual.data.add import add_files
from rorqual.data.build import build_shards
from rorqual.data.chats import add_chats
from rorqual.data.fetch import FetchReport, fetch_profile
from rorqual.data.index import load_index
from rorqual.data.loader import Batch, PackedLoader, validation_batches
from rorqual.data.manifest import Manifest, load_manifest
from rorqual.data.sources import Profile, select_sources

__all__ = [
    "Batch",
    "FetchReport",
    "Manifest",
    "PackedLoader",
    "Profile",
    "add_chats",
    "add_files",
    "build_shards",
    "fetch_profile",
    "load_index",
    "load_manifest",
    "select_sources",
    "validation_batches",
]
