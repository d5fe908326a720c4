"""Files over HTTP, by `requests`: resumed where they were cut off, checked, and renamed only when they are whole.

After a cut, or in a later run, a Range request asks for the rest of what is on disk (see partial.py), on the condition
that the file has not changed meanwhile (If-Range). A server may answer with the whole file instead; then it begins
again. See RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.exceptions import ChunkedEncodingError, SSLError
from urllib3.util import Retry

from picogpt import files
from picogpt.errors import UserError
from picogpt.weights.openai import Known
from picogpt.weights.partial import CHUNK, Part, Promise

TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of data
RETRIES = 5  # without a new byte in between
FIRST_RETRIES = 2  # as long as nothing has come from the server at all
BACKOFF = 0.5  # seconds before the second try; twice as long before each one after it
LONGEST_WAIT = 300  # seconds; where a server asks for more, the user is told instead
RETRIED = (429, 500, 502, 503, 504)

WEIGHTS_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"


def weights_url() -> str:
    """Where models are fetched from: OpenAI's server, or a mirror named by PICOGPT_WEIGHTS_URL. Raises UserError."""
    url = os.environ.get("PICOGPT_WEIGHTS_URL") or WEIGHTS_URL
    if not _is_safe(url):
        raise UserError(f"PICOGPT_WEIGHTS_URL: expected an https address, found {url!r}")
    if "@" in urlsplit(url).netloc:
        raise UserError("PICOGPT_WEIGHTS_URL: expected no password in the address, found one: put it into ~/.netrc")
    return url.rstrip("/")


def _is_safe(url: str) -> bool:
    """Can nobody on the way change what comes? By https, or from this very machine."""
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        return False
    return bool(host) and (scheme == "https" or (scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_unsafe_redirect(response: requests.Response, **_: Any) -> None:
    target = response.headers.get("Location")
    if response.is_redirect and target and not _is_safe(urljoin(response.url, target)):
        raise UserError(f"{response.url}: expected a redirect to https, found one to {target}: use another mirror")


class TransientError(Exception):
    """What went wrong may go well the next time; after `wait` seconds, if the server says so."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def fetch_all(base_url: str, names: Iterable[str], directory: Path, known: Callable[[str], Known]) -> None:
    """Download files into a directory that only we write to. Raises UserError; what has come by then stays."""
    started, parts = time.monotonic(), [Part(directory / name) for name in names]
    with requests.Session() as session, files.explained(directory):
        session.headers["Accept-Encoding"] = "identity"  # lengths and ranges are those of the file itself
        session.hooks["response"].append(_refuse_unsafe_redirect)
        for part in parts:
            fetch(session, f"{base_url}/{part.goal.name}", part, known(part.goal.name))
    count = "1 file" if len(parts) == 1 else f"{len(parts)} files"
    received = files.size(sum(part.received for part in parts))
    files.note(f"fetched {count} into {directory}: {received} in {time.monotonic() - started:.1f} s from {base_url}")


def fetch(session: requests.Session, url: str, part: Part, known: Known) -> None:
    """Download one file, or the rest of it. Raises UserError where trying again is no use, or no more."""
    furthest, failures = part.size, 0
    while True:
        try:
            _attempt(session, url, part, known)
            return part.finish()
        except (
            TransientError,
            requests.ConnectionError,
            requests.Timeout,
            ChunkedEncodingError,
        ) as e:
            failures = failures + 1 if part.size <= furthest else 1
            furthest = max(furthest, part.size)
            patience = RETRIES if furthest or isinstance(e, TransientError) else FIRST_RETRIES
            if failures > patience or isinstance(e, SSLError):
                raise _give_up(url, part, _reason(e)) from None
            _wait(e, url, failures)
        except requests.RequestException as e:
            raise _give_up(url, part, _reason(e)) from None


def _attempt(session: requests.Session, url: str, part: Part, known: Known) -> None:
    """One request for what is missing of a file.

    Raises TransientError or an error of requests where another attempt may help, UserError where not.
    """
    promise = part.promise(url, known)
    start = part.size if promise else 0
    if promise is None or start != promise.total:
        headers = _range_headers(start, promise) if promise else {}
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            start, promise = _read_head(response, url, start, promise, part)
            promise = _believed(promise, known, response)
            if start == 0:
                part.begin(promise)
            part.save(response.iter_content(CHUNK), promise.total)
    _check_whole(url, part, promise, known, resumed=start > 0)


def _range_headers(start: int, promise: Promise) -> dict[str, str]:
    return {"Range": f"bytes={start}-"} | ({"If-Range": promise.validator} if promise.validator else {})


def _read_head(
    response: requests.Response, url: str, start: int, before: Promise | None, part: Part
) -> tuple[int, Promise]:
    """Where the body of a response begins in the file, and what its headers promise of the whole."""
    status = response.status_code
    if status in RETRIED:
        raise TransientError(f"the server says {status} {response.reason}", _retry_after(response))
    if status == 200:
        return 0, _promise(response, url)
    if status == 206 and before is not None and _continues(response, url, start, before):
        return start, before
    if status in (206, 416):
        part.discard()
        raise TransientError("the server's ranges do not fit what is on disk: beginning anew")
    raise _give_up(url, part, f"the server says {status} {response.reason}")


def _promise(response: requests.Response, url: str) -> Promise:
    headers = response.headers
    etag = headers.get("ETag", "")
    strong = etag if etag.startswith('"') else None  # a weak one, W/"...", may stay while bytes change
    total = headers.get("Content-Length", "")
    return Promise(
        url, int(total) if total.isdigit() else None, strong or headers.get("Last-Modified"), headers.get("Content-MD5")
    )


def _continues(response: requests.Response, url: str, start: int, before: Promise) -> bool:
    """Is a partial response what follows `start`, to the end, of the same file as before?"""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    if found is None or before.total is None:
        return False
    validator = _promise(response, url).validator
    same = validator is None or validator == before.validator
    return same and tuple(map(int, found.groups())) == (start, before.total - 1, before.total)


def _believed(promise: Promise, known: Known, response: requests.Response) -> Promise:
    """The promise, with the length from what is known where the server gives none.

    Raises UserError where what comes cannot be the file, or could be cut without being seen.
    """
    url, headers = promise.url, response.headers
    if (kind := headers.get("Content-Type", "")).startswith("text/html"):
        raise UserError(f"{url}: expected a file, found a web page ({kind}): does a proxy ask for a login?")
    if (encoding := headers.get("Content-Encoding", "identity")) != "identity":
        raise UserError(f"{url}: expected the file as it is, found it encoded as {encoding}: use another mirror")
    total = known.size if promise.total is None else promise.total
    if total is None:
        raise UserError(f"{url}: expected a Content-Length, found none, so a cut could not be seen: use another mirror")
    if total != (known.size or total) or total == 0:
        raise UserError(f"{url}: expected {known.size or 'some'} bytes, found {total}: not OpenAI's file")
    return promise._replace(total=total)


def _check_whole(url: str, part: Part, promise: Promise, known: Known, resumed: bool) -> None:
    """Raises TransientError where bytes are missing, or where two answers do not make the file; UserError where one
    answer does not. What is wrong is discarded.
    """
    if promise.total is not None and part.size < promise.total:
        raise TransientError(f"expected {promise.total} bytes, found {part.size}")
    found = part.wrong(promise, known)
    if found is None:
        return
    part.discard()
    if resumed:
        raise TransientError(f"{found}: the file has changed meanwhile, beginning anew")
    raise UserError(f"{url}: {found}: not the file that was promised; run again or use another mirror")


def _retry_after(response: requests.Response) -> float | None:
    try:
        return Retry().get_retry_after(response.raw)  # seconds, or a date
    except urllib3.exceptions.InvalidHeader:
        return None


def _wait(error: Exception, url: str, failures: int) -> None:
    """Before the next attempt: as long as the server asks for, else longer each time."""
    asked = error.wait if isinstance(error, TransientError) else None
    seconds = BACKOFF * 2 ** (failures - 1) if asked is None else asked
    if seconds > LONGEST_WAIT:
        raise UserError(f"{url}: the server asks to come back in {seconds:.0f} s: run again then to continue")
    files.note(f"fetching {url}: {_reason(error)}: trying again in {seconds:g} s")
    time.sleep(seconds)


def _give_up(url: str, part: Part, reason: str) -> UserError:
    return UserError(
        f"cannot fetch {url} ({reason}): run again to continue, put the file into {part.goal.parent} by hand, "
        "or use the bundled model, which needs no network: --model_size shakespeare"
    )


def _reason(error: BaseException) -> str:
    """The innermost cause of an error of requests, in one line."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    reason = getattr(error, "reason", None)
    text = str(reason if isinstance(reason, Exception) else error).splitlines()[0]
    return re.sub(r"^HTTPS?Connection\(.*?\): ", "", text)
