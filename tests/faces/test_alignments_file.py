"""`.fsa` files: the real ones, every older version, arrays of every NumPy, and pickles that want to do more."""

from __future__ import annotations

import json
import pickle
import pickletools
import zlib

import numpy as np
import pytest

from fsdeploy.errors import HostileFileError, InputError, UnsupportedFormatError
from fsdeploy.faces.alignments import Alignments, read_alignments, write_alignments


def save(path, document, protocol=4):
    path.write_bytes(zlib.compress(document if isinstance(document, bytes) else pickle.dumps(document, protocol)))
    return path


@pytest.fixture
def face(header_dict):
    return {**header_dict["alignments"], "thumb": [255, 216, 0]}


@pytest.fixture
def document(face):
    return {"__meta__": {"version": 2.4}, "__data__": {"a_000001.mp4": {"faces": [face], "video_meta": {}}}}


def assert_is_face(record, face):
    assert (record.x, record.y, record.w, record.h) == tuple(face[key] for key in "xywh")
    assert record.landmarks.dtype == np.float32
    assert record.landmarks.astype(float).tolist() == face["landmarks_xy"]
    mask = record.masks["bisenet-fp_face"]
    assert mask.decompress().tobytes() == bytes(range(256)) * 64
    expected = np.array(face["mask"]["bisenet-fp_face"]["affine_matrix"])
    assert mask.affine_matrix == pytest.approx(expected, rel=1e-6)
    assert record.identity["vggface2"] == pytest.approx([0.125, -0.5, 1e-07])
    assert record.thumb == bytes([255, 216, 0])


def test_the_real_files_read_whole_and_round_trip(real_data, tmp_path):
    for clip, count in (("clip_A", 331), ("clip_B", 383)):
        source = real_data / f"{clip}_alignments.fsa"
        alignments = read_alignments(source)
        assert len(alignments.frames) == count
        assert alignments.version == 2.4
        assert alignments.skipped == ()
        copy = tmp_path / source.name
        write_alignments(copy, alignments)
        # The standard library's reader as oracle, on files that we trust.
        original, written = (pickle.loads(zlib.decompress(path.read_bytes())) for path in (source, copy))
        assert written == original


def test_a_header_and_the_alignments_agree_on_a_real_face(real_data):
    from fsdeploy.faces.png import read_header

    alignments = read_alignments(real_data / "clip_A_alignments.fsa")
    for path in sorted((real_data / "faces" / "A").glob("*.png"))[::25]:
        header = read_header(path)
        record = alignments.frames[header.source.source_filename][header.source.face_index]
        assert np.array_equal(record.landmarks, header.face.landmarks)
        assert record.masks["custom_face"].data == header.face.masks["custom_face"].data


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_pickle_protocol_is_read_with_lists_and_with_arrays(tmp_path, document, face, protocol):
    path = save(tmp_path / "a.fsa", document, protocol)
    assert_is_face(read_alignments(path).frames["a_000001.mp4"][0], face)
    own = document["__data__"]["a_000001.mp4"]["faces"][0]
    own = {
        **own,
        "x": np.int32(own["x"]),
        "h": np.float64(own["h"]),
        "landmarks_xy": np.array(own["landmarks_xy"], np.float32),
        "thumb": np.array(own["thumb"], np.uint8),
        "identity": {"vggface2": np.array([0.125, -0.5, 1e-07], ">f8")},
    }
    mask = dict(own["mask"]["bisenet-fp_face"])
    mask["affine_matrix"] = np.asfortranarray(np.array(mask["affine_matrix"], np.float64))
    own["mask"] = {"bisenet-fp_face": mask}
    document["__data__"]["a_000001.mp4"]["faces"] = [own]
    path = save(tmp_path / "b.fsa", document, protocol)
    assert_is_face(read_alignments(path).frames["a_000001.mp4"][0], face)


def test_arrays_of_an_older_numpy_are_read(tmp_path, document, face):
    own = {**face, "landmarks_xy": np.array(face["landmarks_xy"], np.float32)}
    document["__data__"]["a_000001.mp4"]["faces"] = [own]
    data = pickle.dumps(document, 2)
    assert b"numpy._core" in data
    path = save(tmp_path / "old.fsa", data.replace(b"numpy._core", b"numpy.core"))
    assert_is_face(read_alignments(path).frames["a_000001.mp4"][0], face)


def test_landmarks_kept_as_a_list_of_arrays_are_read(tmp_path, document, face):
    own = document["__data__"]["a_000001.mp4"]["faces"][0]
    own = {**own, "landmarks_xy": [np.array(point) for point in own["landmarks_xy"]]}
    document["__data__"]["a_000001.mp4"]["faces"] = [own]
    assert_is_face(read_alignments(save(tmp_path / "a.fsa", document)).frames["a_000001.mp4"][0], face)


def test_a_file_without_a_version_is_version_1(tmp_path, face):
    old = {key: value for key, value in face.items() if key in "xywh"}
    old |= {"landmarksXY": face["landmarks_xy"], "hash": "ab" * 20}
    alignments = read_alignments(save(tmp_path / "v1.fsa", {"frame.png": [old], "empty.png": []}))
    assert alignments.version == 1.0
    record = alignments.frames["frame.png"][0]
    assert record.landmarks.astype(float).tolist() == face["landmarks_xy"]
    assert (record.masks, record.identity, record.thumb) == ({}, {}, None)
    assert record.extra == {"hash": "ab" * 20}
    assert alignments.frames["empty.png"] == []


def test_masks_before_2_2_are_face_centred(tmp_path, document):
    document["__meta__"]["version"] = 2.1
    frame = document["__data__"]["a_000001.mp4"]
    del frame["video_meta"]
    del frame["faces"][0]["identity"]
    del frame["faces"][0]["mask"]["bisenet-fp_face"]["stored_centering"]
    record = read_alignments(save(tmp_path / "a.fsa", document)).frames["a_000001.mp4"][0]
    assert record.masks["bisenet-fp_face"].stored_centering == "face"
    assert record.identity == {}


def test_old_frame_names_of_a_video_get_its_extension(tmp_path, face):
    frames = {"clip_000001.png": {"faces": [face]}, "clip_000002.png": {"faces": []}, "other_000001.png": {"faces": []}}
    path = save(tmp_path / "a.fsa", {"__meta__": {"version": 2.3}, "__data__": frames})
    named = read_alignments(path, video=tmp_path / "clip.mkv").frames
    assert list(named) == ["clip_000001.mkv", "clip_000002.mkv", "other_000001.png"]
    assert list(read_alignments(path).frames) == list(frames)
    assert list(read_alignments(path, video=tmp_path / "frames").frames) == list(frames)


def test_video_timing_is_kept_when_it_is_the_integer_kind(tmp_path, face):
    frames = {
        "a": {"faces": [face], "video_meta": {"pts_time": 512, "keyframe": True}},
        "b": {"faces": [face], "video_meta": {"pts_time": 0.04, "keyframe": True}},
        "c": {"faces": [face]},
    }
    alignments = read_alignments(save(tmp_path / "a.fsa", {"__meta__": {"version": 2.3}, "__data__": frames}))
    assert alignments.video_meta == {"a": {"pts_time": 512, "keyframe": True}}


def test_json_and_uncompressed_pickle_of_2019_are_read(tmp_path, face):
    old = {"frame.png": [{**{key: face[key] for key in "xywh"}, "landmarksXY": face["landmarks_xy"]}]}
    (tmp_path / "a.json").write_text(json.dumps(old))
    (tmp_path / "a.p").write_bytes(pickle.dumps(old))
    for name in ("a.json", "a.p"):
        assert len(read_alignments(tmp_path / name).frames["frame.png"]) == 1
    (tmp_path / "a.yml").write_text("{}")
    with pytest.raises(UnsupportedFormatError, match=r"a\.yml"):
        read_alignments(tmp_path / "a.yml")


def test_a_bad_face_is_skipped_with_its_reason_and_the_others_keep_their_place(tmp_path, face):
    bad = {**face, "landmarks_xy": [[float("nan"), 0.0]] * 68}
    path = save(tmp_path / "a.fsa", {"__meta__": {"version": 2.4}, "__data__": {"f.png": {"faces": [bad, face, 5]}}})
    alignments = read_alignments(path)
    assert len(alignments.frames["f.png"]) == 1
    assert alignments.positions == {"f.png": [1]}
    assert len(alignments.skipped) == 2
    assert alignments.skipped[0].startswith("f.png, face 0: landmarks hold values that are not numbers")


@pytest.mark.parametrize("key", ["mask", "identity"])
@pytest.mark.parametrize("value", [np.zeros(3), np.zeros((2, 2), np.uint8), "text", 7, True, [1.0]])
def test_a_face_whose_masks_are_no_table_costs_that_face_alone(tmp_path, face, key, value):
    document = {"__meta__": {"version": 2.4}, "__data__": {"a.png": {"faces": [{**face, key: value}, face]}}}
    alignments = read_alignments(save(tmp_path / "a.fsa", document))
    assert len(alignments.frames["a.png"]) == 1
    (reason,) = alignments.skipped
    assert "a.png, face 0" in reason and key in reason


@pytest.mark.parametrize("key", ["mask", "identity"])
@pytest.mark.parametrize("value", [None, {}, [], ()])
def test_a_face_without_masks_or_embeddings_is_a_face(tmp_path, face, key, value):
    document = {"__meta__": {"version": 2.4}, "__data__": {"a.png": {"faces": [{**face, key: value}]}}}
    alignments = read_alignments(save(tmp_path / "a.fsa", document))
    assert alignments.skipped == ()
    assert len(alignments.frames["a.png"]) == 1


def test_reading_never_changes_the_file_and_writing_keeps_a_backup(tmp_path, face):
    path = save(tmp_path / "a.fsa", {"f.png": [face]})
    before = path.read_bytes()
    alignments = read_alignments(path)
    assert path.read_bytes() == before
    write_alignments(path, alignments)
    assert (tmp_path / "a.fsa.bk").read_bytes() == before
    again = read_alignments(path)
    assert again.version == 2.4
    assert_is_face(again.frames["f.png"][0], face)
    with pytest.raises(InputError, match=r"\.fsa"):
        write_alignments(tmp_path / "a.txt", Alignments({}))


class Reducer:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


def forbidden_calls():
    import builtins
    import os

    yield "os.system", Reducer(os.system, "true")
    yield "eval", Reducer(builtins.eval, "1")
    yield "getattr", Reducer(builtins.getattr, "a", "upper")
    yield "bytearray", bytearray(b"abc")
    yield "numpy.load", Reducer(np.load, "x")
    yield "numpy.frombuffer", Reducer(np.frombuffer, b"12345678")
    yield "an object array", np.array([{}, None], dtype=object)
    yield "a text array", np.array(["a", "b"])
    yield "a record array", np.zeros(2, [("a", "f4")])
    yield "a date array", np.array(["2020-01-01"], "M8[D]")
    yield "a set", {1, 2}
    yield "a complex number", 1j


@pytest.mark.parametrize(("name", "value"), list(forbidden_calls()), ids=[name for name, _ in forbidden_calls()])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_builds_anything_but_data_is_refused(tmp_path, name, value, protocol):
    path = save(tmp_path / "evil.fsa", {"__meta__": {"version": 2.4}, "__data__": {"a": value}}, protocol)
    with pytest.raises(HostileFileError, match=r"evil\.fsa is not loaded"):
        read_alignments(path)


def test_a_hostile_pickle_runs_nothing(tmp_path):
    import os

    mark = tmp_path / "ran"
    with pytest.raises(HostileFileError):
        read_alignments(save(tmp_path / "evil.fsa", {"a": Reducer(os.mkdir, str(mark))}))
    assert not mark.exists()


def op(name):
    return next(code.code.encode("latin1") for code in pickletools.opcodes if code.name == name)


HAND_MADE = {
    "a huge memo index": b"]r\xff\xff\xff\xff.",
    "a huge memo index as text": b"]p99999999999\n.",
    "a memo index that is no number": b"]pxyz\n.",
    "millions of empty tables": b"(" + b"}" * 1_000_000 + b"l.",
    "a set": b"\x80\x04\x8f.",
    "dotted global": b"cnumpy\nndarray.tofile\n.",
    "numpy.core alias": b"cnumpy.core.multiarray\nfromfile\n(Vx\ntR.",
    "persistent id": b"Pevil\n.",
    "instance": b"(ios\nsystem\n.",
    "extension code": b"\x80\x02\x82\x01.",
    "new object of a class": b"cnumpy\nndarray\n)" + op("NEWOBJ") + b".",
    "an array called by hand": b"cnumpy\nndarray\n((I1000000000\ntI0\ntR.",
    "state on a function": b"c_codecs\nencode\n}Vx\nI1\nsb.",
    "state on a class": b"cnumpy\nndarray\n}b.",
    "bytes with a strange codec": b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
    "dtype of objects": b"cnumpy\ndtype\n(VO\nI0\nI1\ntR.",
    "dtype of a void": b"cnumpy\ndtype\n(VV1000000000\nI0\nI1\ntR.",
    "out of band buffer": b"\x80\x05" + op("NEXT_BUFFER") + b".",
}


@pytest.mark.parametrize("case", HAND_MADE)
def test_hand_made_hostile_pickles_are_refused(tmp_path, case):
    with pytest.raises(HostileFileError):
        read_alignments(save(tmp_path / "evil.fsa", HAND_MADE[case]))


DAMAGED = {
    "state on a dict": b"}}Vx\nI1\nsb.",
    "empty": b"",
    "a huge string": b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a bytearray of a terabyte": b"\x80\x05" + op("BYTEARRAY8") + (1 << 40).to_bytes(8, "little") + b"x.",
    "stop without value": b".",
    "mark without end": b"(((((",
    "an array of impossible shape": pickle.dumps(np.arange(4.0), 2).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85"),
    "a list, not a table": b"].",
    "a table of numbers": b"}(I1\nI2\nu.",
    "a number": b"I5\n.",
    "junk": bytes(range(256)),
    "a list in itself": b"]q\x00h\x00a.",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_pickles_are_refused(tmp_path, case):
    with pytest.raises(InputError, match=r"odd\.fsa"):
        read_alignments(save(tmp_path / "odd.fsa", DAMAGED[case]))


@pytest.mark.parametrize("data", [b"", b"junk", b"x\x9c", zlib.compress(b"}." * 1000)[:-4]])
def test_a_file_that_is_no_zlib_stream_is_refused(tmp_path, data):
    (tmp_path / "odd.fsa").write_bytes(data)
    with pytest.raises(InputError, match=r"odd\.fsa"):
        read_alignments(tmp_path / "odd.fsa")


def test_a_compression_bomb_is_refused_before_it_unpacks(tmp_path):
    (tmp_path / "bomb.fsa").write_bytes(zlib.compress(bytes(200 << 20), 9))
    with pytest.raises(HostileFileError, match=r"bomb\.fsa unpacks to more"):
        read_alignments(tmp_path / "bomb.fsa")


def test_one_face_repeated_by_reference_without_end_is_refused(tmp_path, face):
    path = save(tmp_path / "bomb.fsa", {"__meta__": {"version": 2.4}, "__data__": {"f": {"faces": [face] * 200_000}}})
    with pytest.raises(HostileFileError, match="repeats its faces"):
        read_alignments(path)


def test_lists_that_double_by_reference_are_not_expanded(tmp_path, face):
    value = [1.0]
    for _ in range(60):
        value = [value, value]
    for key in ("landmarks_xy", "thumb", "new", "identity"):
        own = {**face, key: {"x": value} if key == "identity" else value}
        path = save(tmp_path / "bomb.fsa", {"__meta__": {"version": 2.4}, "__data__": {"f": {"faces": [own]}}})
        assert len(read_alignments(path).skipped) == 1


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"gone\.fsa"):
        read_alignments(tmp_path / "gone.fsa")


def test_memory_stays_in_bounds_for_a_huge_memo_index(tmp_path):
    import tracemalloc

    path = save(tmp_path / "odd.fsa", HAND_MADE["a huge memo index"])
    tracemalloc.start()
    with pytest.raises(InputError):
        read_alignments(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


def test_the_oracle_pickles_of_this_file_are_what_they_say():
    # So that the refusals above are about the content and not about a pickle that nobody could read.
    assert pickle.loads(pickle.dumps(np.arange(4.0), 2)).tolist() == [0, 1, 2, 3]
    assert len(pickle.loads(HAND_MADE["millions of empty tables"])) == 1_000_000
