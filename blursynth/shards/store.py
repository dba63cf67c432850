"""A folder in an object store, by its URL: what fsspec can reach (``s3://bucket/data``), told in plain errors.

``hf://datasets/USER/NAME/data`` is a folder of a data set on the Hugging Face Hub; each file that is written there is a
commit. Credentials, region and endpoint come from the usual environment (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``,
``AWS_ENDPOINT_URL``, ``HF_TOKEN``, ``HF_ENDPOINT``...): nothing of the kind is read or kept here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blursynth.common.errors import UsageError
from blursynth.common.extras import install_extra

BLOCK = 8 * 2**20
HUB = "hf://datasets/"


class StoreError(UsageError):
    """The store cannot be used; one line that names the URL, what is wrong and what to do."""


def is_url(path: str | Path) -> bool:
    return "://" in str(path)


def local_path(url: str) -> str:
    """``file:///data`` is a folder like any other; everything else is returned as it is."""
    return url.removeprefix("file://") if url.startswith("file://") else url


def require_local(path: str, command: str) -> str:
    """The path of a command that reads files. Raises StoreError for a URL."""
    path = local_path(path)
    if is_url(path):
        how = "with the store's own tool"
        if path.startswith("s3://"):
            how = f"aws s3 sync {path} data"
        elif path.startswith(HUB):
            how = f"hf download --repo-type dataset {'/'.join(path.removeprefix(HUB).split('/')[:2])} --local-dir data"
        raise StoreError(f"{path}: {command} reads local files only; copy them first ({how})")
    return path


def staging_folder(url: str) -> Path:
    """Where shards for this URL are made before they are uploaded: always the same folder for the same URL."""
    return local_folder(url, "BLURSYNTH_STAGING", "blursynth")


def local_folder(url: str, variable: str, program: str) -> Path:
    """A URL's own folder on this machine, always the same: below what the environment's ``variable`` names, else below
    the program's cache."""
    base = os.environ.get(variable)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / program
    return (Path(base) if base else cache) / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


class Store:
    """The objects directly under a URL, by name. Every method raises StoreError and nothing else."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if url.startswith("hf://") and (
            not url.startswith(HUB) or url.removeprefix(HUB).strip("/").count("/") < 1
        ):
            raise StoreError(f"{url}: names no data set; give hf://datasets/USER/NAME, or a folder in it")
        if not url.partition("://")[2].strip("/"):
            raise StoreError(f"{url}: names no bucket; give s3://BUCKET/FOLDER")
        try:
            import fsspec

            self.fs, root = fsspec.core.url_to_fs(self.url)
        except ImportError as e:
            raise StoreError(
                f"{url}: needs a package ({e}): {install_extra('hf' if url.startswith('hf://') else 's3')}"
            ) from None
        except ValueError as e:
            raise StoreError(
                f"{url}: {e}; give a folder, s3://BUCKET/FOLDER or hf://datasets/USER/NAME"
            ) from None
        self.root = root.rstrip("/")

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def check(self) -> None:
        """Fail now, and not after hours of work, where there is no such bucket or no way to it."""
        if self.url.startswith(HUB):
            repo = "/".join(self.url.removeprefix(HUB).split("/")[:2])
            with self._told():
                if not self.fs.exists(f"datasets/{repo}"):
                    raise StoreError(
                        f"{self.url}: there is no data set {repo} that you may see; create it first (hf repo create {repo} "
                        "--repo-type dataset), and log in (hf auth login, or HF_TOKEN) where it is private"
                    )
            return
        if not self.url.startswith(("s3://", "s3a://")):
            return
        bucket = self.root.partition("/")[0]
        with self._told():
            try:
                self.fs.call_s3("head_bucket", Bucket=bucket)
            except FileNotFoundError:
                raise StoreError(f"{self.url}: there is no bucket {bucket!r}; create it first") from None

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every object there now."""
        with self._told():
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self.root, detail=True)
            except FileNotFoundError:
                return {}
            files = [f for f in found if f["type"] == "file"]
            if any(f.get("size") is None for f in files):  # a web page that lists files (http)
                raise StoreError(
                    f"{self.url}: lists files without their sizes; copy them to a folder, or give s3:// or hf://"
                )
            return {f["name"].rpartition("/")[2]: int(f["size"]) for f in files}

    def read(self, names: list[str]) -> dict[str, bytes]:
        """The bytes of small objects; those that are gone are left out."""
        with self._told():
            got = self.fs.cat([self._at(n) for n in names], on_error="return") if names else {}
            found = {}
            for path, data in got.items():
                if isinstance(data, FileNotFoundError):
                    continue
                if isinstance(data, Exception):
                    raise data
                found[path.rpartition("/")[2]] = data
            return found

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of an object."""
        with self._told(name), self.fs.open(self._at(name), "rb", block_size=size) as f:
            return bytes(f.read(size))

    def write(self, name: str, data: bytes) -> None:
        """Put a small object: a reader sees the old one or the new one."""
        with self._told(name):
            self.fs.pipe_file(self._at(name), data)

    def upload(self, path: Path, name: str) -> None:
        with self._told(name):
            self.fs.put_file(str(path), self._at(name))
            self.fs.invalidate_cache()

    def download(self, name: str, path: Path) -> None:
        with self._told(name):
            self.fs.get_file(self._at(name), str(path))

    def sha256(self, name: str) -> str:
        """Of what lies there, read back; not of what was sent."""
        digest = hashlib.sha256()
        with self._told(name), self.fs.open(self._at(name), "rb", block_size=BLOCK) as f:
            while block := f.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def remove(self, name: str) -> None:
        """Remove an object; that it is gone already is no error."""
        with self._told(name), contextlib.suppress(FileNotFoundError):
            if not self.url.startswith(HUB) or self.fs.exists(self._at(name), refresh=True):
                self.fs.rm_file(self._at(name))

    @contextlib.contextmanager
    def _told(self, name: str = "") -> Iterator[None]:
        """Whatever the store's libraries raise, as one line."""
        try:
            yield
        except StoreError:
            raise
        # botocore, aiohttp and s3fs share no base class of their own, and are not there without the extra.
        except Exception as e:
            at = self._at(name).removeprefix(self.root) if name else ""
            raise StoreError(f"{self.url}{at}: {_advice(e)}") from None


def _advice(e: Any) -> str:
    """What is wrong and what to do, for the errors a person can do something about."""
    kind, text = type(e).__name__, " ".join(str(e).split())[:200]
    if kind in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
        return f"no credentials ({text}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if (status := getattr(getattr(e, "response", None), "status_code", None)) in (401, 403):
        return (
            f"not allowed (status {status}); log in with hf auth login or HF_TOKEN, with the right to write"
        )
    if isinstance(e, PermissionError):
        return f"not allowed ({text}); check the credentials and the bucket's policy"
    if "Connect" in kind or "Timeout" in kind or isinstance(e, ConnectionError | TimeoutError):
        return f"cannot be reached ({text}); check the network and AWS_ENDPOINT_URL"
    if isinstance(e, FileNotFoundError):
        return f"not there ({text}); does the bucket exist?"
    return f"{kind}: {text}"
