"""Outputs say that they were made with a trained model, and a signed one shows when it was changed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert.provenance import COMPOSITE, GENERATED, Mark, mark_png, read_source_type
from fsdeploy.convert.shard import report_path

FACE = spec_landmarks((32, 30), 22)


def one_frame(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "1.png"), np.full((60, 64, 3), 120, np.uint8))
    return tmp_path / "in", write_landmarks(tmp_path / "l.json", {"1.png": [FACE]})


def xmp_of(path: Path) -> str:
    """The XMP packet as Pillow, an independent reader, finds it."""
    from PIL import Image

    if path.suffix == ".gif":  # Pillow reads what stands before the picture only
        data = path.read_bytes()
        start = data.index(b"\x21\xff\x0bXMP DataXMP") + 14
        assert data.endswith(bytes([1, *range(255, -1, -1), 0]) + b";")
        return data[start:-259].decode()
    with Image.open(path) as image:
        found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        if not found and path.suffix == ".tif":
            found = image.tag_v2.get(700, b"")
    return found if isinstance(found, str) else bytes(found).decode()


@pytest.mark.parametrize(
    ("writer", "form"),
    [
        ("opencv", "png"),
        ("opencv", "jpg"),
        ("opencv", "tif"),
        ("pillow", "tif"),
        ("pillow", "png"),
        ("pillow", "jpg"),
        ("pillow", "webp"),
        ("pillow", "gif"),
    ],
)
def test_images_carry_the_source_type_where_other_programs_look_for_it(
    tmp_path, dimmer, fsdeploy, writer: str, form: str
) -> None:
    frames, faces = one_frame(tmp_path)
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-w", writer,
                            "--set", f"writer.{writer}.format={form}")  # fmt: skip
    assert code == 0, err
    out = tmp_path / "o" / f"1.{form}"
    assert f'DigitalSourceType="{COMPOSITE}"' in xmp_of(out)
    assert abs(int(cv2.imread(str(out))[5, 5, 0]) - 120) <= 2


def test_the_mark_of_a_png_ends_where_its_packet_ends() -> None:
    done, data = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))
    packet = Mark("test").xmp()
    marked = mark_png(data.tobytes(), packet)
    assert done and len(marked) == len(data) + 12 + 22 + len(packet)
    assert cv2.imdecode(np.frombuffer(marked, np.uint8), cv2.IMREAD_COLOR) is not None


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv", ".avi", ".flv", ".gif"])
def test_videos_carry_the_source_type_and_still_play(tmp_path, dimmer, fsdeploy, suffix: str) -> None:
    clip = write_clip(tmp_path / "c.mp4", [np.full((60, 64, 3), 120, np.uint8)] * 4)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    out = tmp_path / f"o{suffix}"
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces)
    assert code == 0, err
    assert read_source_type(out) == COMPOSITE
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4


@pytest.mark.parametrize(("name", "options"), [("o.ts", ()), ("o", ("--set", "writer.opencv.format=bmp"))])
def test_what_cannot_be_marked_is_said(tmp_path, dimmer, fsdeploy, name: str, options: tuple[str, ...]) -> None:
    frames, faces = one_frame(tmp_path)
    out = tmp_path / name
    code, text, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces, *options)
    assert code == 0, err
    written = out if out.is_file() else out / "1.bmp"
    assert read_source_type(written) is None and "cannot hold a mark" in text.splitlines()[-1]
    assert json.loads(report_path(out).read_text())["marked"] is False


@pytest.mark.parametrize(
    "options", [(), ("--transparent",), ("--transparent", "--set", "writer.opencv.separate_mask=true")]
)
def test_an_unreadable_frame_is_marked_and_transparent_as_the_picture_it_repeats(
    tmp_path, dimmer, fsdeploy, options: tuple[str, ...]
) -> None:
    frames, faces = one_frame(tmp_path)
    (frames / "2.png").write_bytes(b"damaged")
    assert fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, *options)[0] == 1
    out = tmp_path / "o"
    assert read_source_type(out / "2.png") == COMPOSITE
    for before in out.rglob("1.png"):
        assert before.with_name("2.png").read_bytes() == before.read_bytes()
    assert len(list(out.rglob("2.png"))) == len(list(out.rglob("1.png"))) == (2 if len(options) == 3 else 1)


def test_an_unreadable_first_frame_of_transparent_output_shows_nothing(tmp_path, dimmer, fsdeploy) -> None:
    frames, faces = one_frame(tmp_path)
    (frames / "0.png").write_bytes(b"damaged")
    assert fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "--transparent")[0] == 1
    first = cv2.imread(str(tmp_path / "o" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert first.shape == (60, 64, 4) and not first.any()


def test_a_bare_patch_is_marked_as_wholly_generated(tmp_path, dimmer, fsdeploy) -> None:
    frames, faces = one_frame(tmp_path)
    fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-w", "patch")
    assert read_source_type(next((tmp_path / "o").glob("*.png"))) == GENERATED


def test_leaving_the_mark_out_is_said_in_one_line(tmp_path, dimmer, fsdeploy) -> None:
    frames, faces = one_frame(tmp_path)
    code, out, _ = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "--no-mark")
    assert code == 0 and "Art. 50" in out.splitlines()[-1]
    assert read_source_type(tmp_path / "o" / "1.png") is None
    assert '"marked": false' in (tmp_path / "o" / "convert_report.json").read_text()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A test certificate chain (leaf, root) and the leaf's key."""
    pytest.importorskip("c2pa", reason="content credentials need the extra 'provenance'")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        return x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, text), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "t")]
        )

    def usage(**on: bool) -> x509.KeyUsage:
        names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
        return x509.KeyUsage(**{name: on.get(name, False) for name in names})

    root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(UTC)

    def build(subject: str, public, authority: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject)).issuer_name(named("root")).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )  # fmt: skip

    root = build("root", root_key.public_key(), True).add_extension(usage(key_cert_sign=True), critical=True)
    leaf = build("leaf", leaf_key.public_key(), False).add_extension(usage(digital_signature=True), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    chain = [builder.sign(root_key, hashes.SHA256()) for builder in (leaf, root)]
    folder = tmp_path_factory.mktemp("key")
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(b"".join(entry.public_bytes(pem) for entry in chain))
    (folder / "key.pem").write_bytes(
        leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "chain.pem", folder / "key.pem"


def test_a_signed_video_is_valid_and_names_its_source_type_until_a_byte_is_changed(
    tmp_path, dimmer, fsdeploy, certificate
) -> None:
    import c2pa

    from fsdeploy.convert.credentials import validation_state

    clip = write_clip(tmp_path / "c.mp4", [np.full((60, 64, 3), 120, np.uint8)] * 4)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    out = tmp_path / "o.mp4"
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces, "--sign", *certificate)
    assert code == 0, err
    assert validation_state(out) == "Valid"
    with out.open("rb") as stream, c2pa.Reader("video/mp4", stream) as reader:
        manifest = reader.json()
    assert COMPOSITE in manifest and "c.mp4" in manifest and "model_sha256" in manifest
    assert read_source_type(out) == COMPOSITE
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4
    data = bytearray(out.read_bytes())
    data[data.index(b"mdat") + 30] ^= 1
    out.write_bytes(data)
    assert validation_state(out).startswith("Invalid")


def test_images_are_signed_where_something_was_swapped(tmp_path, dimmer, fsdeploy, certificate) -> None:
    from fsdeploy.convert.credentials import validation_state

    frames, faces = one_frame(tmp_path)
    cv2.imwrite(str(frames / "2.png"), np.full((60, 64, 3), 120, np.uint8))
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "--sign", *certificate
    )
    assert code == 0, err
    assert validation_state(tmp_path / "o" / "1.png") == "Valid"
    assert validation_state(tmp_path / "o" / "2.png") == "Unsigned"
    assert read_source_type(tmp_path / "o" / "2.png") is None


def test_joined_images_are_signed_as_those_of_one_run(tmp_path, dimmer, fsdeploy, certificate) -> None:
    from fsdeploy.convert.credentials import validation_state

    frames, faces = one_frame(tmp_path)
    cv2.imwrite(str(frames / "2.png"), np.full((60, 64, 3), 120, np.uint8))
    out = tmp_path / "o"
    for n in (1, 2):
        shard = ("--shard", f"{n}/2")
        assert fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces, *shard)[0] == 0
    for _ in range(2):  # what is signed already stays so
        code, _, err = fsdeploy("join", out, "-o", out, "--sign", *certificate)
        assert code == 0, err
        assert validation_state(out / "1.png") == "Valid" and validation_state(out / "2.png") == "Unsigned"


@pytest.mark.parametrize("options", [("--set", "writer.opencv.format=bmp"), ("--no-mark",)])
def test_parts_that_cannot_be_signed_are_not_joined(
    tmp_path, dimmer, fsdeploy, certificate, options: tuple[str, ...]
) -> None:
    frames, faces = one_frame(tmp_path)
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces, *options)
    assert fsdeploy(*common, "-o", tmp_path / "p", "--shard", "1/1")[0] == 0
    code, _, err = fsdeploy("join", tmp_path / "p", "-o", tmp_path / "o", "--sign", *certificate)
    assert code == 2 and len(err.splitlines()) == 1 and not (tmp_path / "o").exists()
    code, _, err = fsdeploy(*common, "-o", tmp_path / "q", "--sign", *certificate)
    assert code == 2 and len(err.splitlines()) == 1 and not (tmp_path / "q").exists()


def test_what_cannot_be_signed_is_refused_before_work_starts(tmp_path, dimmer, fsdeploy, certificate) -> None:
    frames, faces = one_frame(tmp_path)
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces)
    code, _, err = fsdeploy(*common, "-o", tmp_path / "o.mkv", "--sign", *certificate)
    assert code == 2 and ".mkv" in err
    code, _, err = fsdeploy(*common, "-o", tmp_path / "o.mp4", "--sign", certificate[0], certificate[0])
    assert code == 2 and "private key" in err and len(err.splitlines()) == 1
    assert not list(tmp_path.glob("*.mp4"))
