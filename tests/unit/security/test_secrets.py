import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mainspring.core.errors import Corrupt
from mainspring.security import secrets
from mainspring.security.signing import SigningKey, verify


def test_it_is_made_once_and_private(tmp_path) -> None:
    path = tmp_path / "state" / "pepper"
    first = secrets.load_or_create(path)
    assert len(first) == 32
    assert secrets.load_or_create(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["pepper"]


def test_a_wide_umask_opens_nothing(tmp_path) -> None:
    before = os.umask(0)
    try:
        secrets.load_or_create(tmp_path / "secret")
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_threads_that_come_first_at_once_agree(tmp_path) -> None:
    for attempt in range(20):
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _, a=attempt: secrets.load_or_create(tmp_path / str(a), 64), range(8)))
        assert len(found) == 1


def test_processes_that_come_first_at_once_agree(tmp_path) -> None:
    program = "import sys, pathlib; from mainspring.security import secrets; sys.stdin.read();"
    program += f"print(secrets.load_or_create(pathlib.Path({str(tmp_path / 'secret')!r})).hex())"
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for child in children:  # they all wait for the end of their input
        child.stdin.close()
    found = {child.stdout.read() for child in children}
    assert [child.wait() for child in children] == [0] * 4
    for child in children:
        child.stdout.close()
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_the_signing_key_is_the_same_after_a_restart(tmp_path) -> None:
    path = tmp_path / "signing.key"
    key = SigningKey.load_or_create(path)
    signature = key.sign(b"content")
    again = SigningKey.load_or_create(path)
    assert again.public == key.public
    verify(again.public, signature, b"content")


def test_a_signature_is_the_standards() -> None:
    """RFC 8032, section 7.1, test 2."""
    key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_one_flipped_bit_anywhere_is_found() -> None:
    key = SigningKey(bytes(32))
    content = b"a bundle's manifest"
    signature = key.sign(content)
    for text, again in ((signature, lambda x: (x, content)), (content, lambda x: (signature, x))):
        for position in range(len(text)):
            changed = bytearray(text)
            changed[position] ^= 1
            with pytest.raises(Corrupt):
                verify(key.public, *again(bytes(changed)))
