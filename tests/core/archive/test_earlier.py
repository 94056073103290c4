# SPDX-License-Identifier: Apache-2.0
"""Images as they were at an earlier step, from archives of real engines, and configurations replayed."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.archive.earlier import earlier_configuration, earlier_image, member_bytes
from airflow_provider_dockerbackup.core.archive.instruction import healthcheck, quoted_words
from airflow_provider_dockerbackup.core.archive.replay import Replayed, replayed
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost

from .making import IMAGES, Entry, compact, drained, entries_of, golden, image_config, layer, pieces, scan, tar_of

TAG = "lab/earlier:1"
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)


def go_quoted(text: str) -> str:
    """Return text as Go's ``%q`` writes it, for characters that it escapes at all; others stay."""
    simple = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v", "\\": "\\", '"': '"'}
    out = ""
    for each in text:
        if each in simple:
            out += "\\" + simple[each]
        elif each < " " or each == "\x7f":
            out += f"\\x{ord(each):02x}"
        elif not each.isprintable():
            out += f"\\u{ord(each):04x}" if ord(each) < 0x10000 else f"\\U{ord(each):08x}"
        else:
            out += each
    return f'"{out}"'


def nop(text: str, shell: str = "/bin/sh -c") -> dict[str, Any]:
    """Return a step as the classic builder writes one that makes no layer."""
    return {"created_by": f"{shell} #(nop)  {text}", "empty_layer": True}


def buildkit(text: str) -> dict[str, Any]:
    """Return a step as BuildKit writes one that makes no layer."""
    return {"created_by": text, "comment": "buildkit.dockerfile.v0", "empty_layer": True}


BASE = {"created_by": "/bin/sh -c #(nop) ADD file:0123 in / "}
IMPORT = {"comment": "Imported from -"}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COPY = {"created_by": "COPY x /x # buildkit", "comment": "buildkit.dockerfile.v0"}


def at(step: int, config: dict[str, Any], *history: dict[str, Any]) -> Replayed:
    """Return the configuration after some steps."""
    return replayed(config, history, step=step)


@pytest.mark.parametrize("name", IMAGES)
def test_every_step_of_a_real_archive_becomes_an_image_that_scans_and_loads(name: str) -> None:
    """For all engines' formats: the kept layers with their bytes, the kept history, under the wanted tag alone."""
    data = golden(name)
    image = scan(data).image
    stored = {entry.name: entry.body for entry in entries_of(data)}
    document = member_bytes(pieces(data, 1000), digest=image.config_digest)
    assert document == image.config
    for step in range(1, len(image.history) + 1):
        earlier = earlier_configuration(document, step=step)
        kept = image.layers[: len(earlier.diff_ids)]
        made = b"".join(earlier_image(pieces(data, 700), document=earlier.document, layers=kept, tags=[TAG]))
        found = scan(made)
        assert found.image.diff_ids == image.diff_ids[: sum(not each.empty_layer for each in image.history[:step])]
        assert found.image.history == image.history[:step]
        assert found.image.repo_tags == (TAG,)
        bodies = {entry.name: entry.body for entry in entries_of(made)}
        for mine, theirs in zip(found.image.layers, kept, strict=True):
            assert bodies[mine.member] == stored[theirs.member]
        value = json.loads(found.image.config)
        assert step == len(image.history) or value["created"] == image.history[step - 1].created
        assert step == len(image.history) or not {"container", "container_config"} & set(value)
        host = MemoryDockerHost("ship")
        host.load_image([made])
        assert host.inspect_image(TAG).id == found.image.config_digest


@pytest.mark.parametrize("name", IMAGES)
def test_all_steps_together_are_the_image_itself(name: str) -> None:
    """Going back to the last step changes no byte of the configuration."""
    image = scan(golden(name)).image
    earlier = earlier_configuration(image.config, step=len(image.history))
    assert earlier.document == image.config
    assert earlier.guessed == ()


def test_the_end_stays_back_when_the_source_breaks_off_or_lacks_a_layer() -> None:
    """Without manifest.json and index.json no engine loads anything."""
    data = golden("engine-20.10-graphdriver.tar")
    image = scan(data).image
    document = earlier_configuration(image.config, step=4).document

    def broken() -> Any:
        yield data[:-4096]
        raise IntegrityError("not as recorded")

    out, problem = drained(earlier_image(broken(), document=document, layers=image.layers[:3], tags=[]))
    assert problem == "not as recorded"
    assert b"manifest.json" not in out
    without = tar_of(each for each in entries_of(data) if each.name != image.layers[2].member)
    out, problem = drained(earlier_image([without], document=document, layers=image.layers[:3], tags=[]))
    assert image.layers[2].diff_id in problem
    assert b"manifest.json" not in out


def test_a_configuration_is_found_by_its_digest_or_not_at_all() -> None:
    """A member of the right name with other bytes is no configuration."""
    data = golden("engine-28-graphdriver.tar")
    with pytest.raises(IntegrityError, match="no image configuration"):
        member_bytes([data], digest="sha256:" + "0" * 64)
    forged = tar_of([Entry(f"{'0' * 64}.json", b"{}")])
    with pytest.raises(IntegrityError, match="no image configuration"):
        member_bytes([forged], digest="sha256:" + "0" * 64)


@pytest.mark.parametrize("step", [-1, 0, 3])
def test_steps_that_are_not_there_are_refused(step: int) -> None:
    """Steps count from 1 to the length of the history."""
    with pytest.raises(ConfigurationError, match="expected 1 to 2"):
        earlier_configuration(compact(image_config([layer("a"), layer("b")])), step=step)


def test_a_step_without_a_layer_yet_and_a_history_with_gaps_are_refused() -> None:
    """No engine runs an image without layers; and no layer is given to a step that may not have made it."""
    config = image_config([layer("a")])
    config["history"] = [nop("ENV A=b"), BASE]
    with pytest.raises(ConfigurationError, match="no layer yet"):
        earlier_configuration(compact(config), step=1)
    for history in ([], None, [nop("ENV A=b")]):
        config["history"] = history
        with pytest.raises(ConfigurationError, match=r"does not tell which step.*leave step out"):
            earlier_configuration(compact(config), step=1)


@pytest.mark.parametrize("write", [nop, buildkit], ids=["classic", "buildkit"])
@pytest.mark.parametrize(
    ("key", "instruction", "early", "late"),
    [
        ("Cmd", "CMD", ('["/a" "b c"]', ["/a", "b c"]), ('["/z"]', ["/z"])),
        ("Entrypoint", "ENTRYPOINT", ('["/a", "b"]', ["/a", "b"]), ('["/z"]', ["/z"])),
        ("User", "USER", ("one:two", "one:two"), ("root", "root")),
        ("WorkingDir", "WORKDIR", ("/a b", "/a b"), ("/z", "/z")),
        ("StopSignal", "STOPSIGNAL", ("SIGINT", "SIGINT"), ("SIGKILL", "SIGKILL")),
        ("Shell", "SHELL", ("[/bin/ash]", ["/bin/ash"]), ("[/bin/sh -c]", ["/bin/sh", "-c"])),
        (
            "Healthcheck",
            "HEALTHCHECK",
            (
                '&{["CMD-SHELL" "x"] "1m30s" "3s" "0s" \'\\x03\'}',
                {"Test": ["CMD-SHELL", "x"], "Interval": 90_000_000_000, "Timeout": 3_000_000_000, "Retries": 3},
            ),
            ('&{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}', {"Test": ["NONE"]}),
        ),
    ],
)
def test_a_value_that_a_later_step_changed_is_put_back(
    write: Any, key: str, instruction: str, early: tuple[str, Any], late: tuple[str, Any]
) -> None:
    """In the middle the early value, before it none, and at the end the late one; all of them proven."""
    history = (BASE, write(f"{instruction} {early[0]}"), write(f"{instruction} {late[0]}"))
    assert at(2, {key: late[1]}, *history).config == {key: early[1]}
    assert at(1, {key: late[1]}, *history).config == {}
    assert at(3, {key: late[1]}, *history).config == {key: late[1]}
    for step in (1, 2, 3):
        result = at(step, {key: late[1]}, *history)
        assert (result.exact, result.guessed) == ((key,), ())


def test_single_variables_labels_ports_and_volumes_are_put_back_one_by_one() -> None:
    """What other steps set stays; names that came later go."""
    config = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=2 = x", "B=1"],
        "Labels": {"a b": "2"},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}},
        "Volumes": {"/a": {}, "/with space": {}},
    }
    history = (
        BASE,
        nop("ENV A=1"),
        nop("EXPOSE 80"),
        nop("VOLUME [/a]"),
        nop("LABEL a b=1"),
        buildkit("ENV A=2 = x"),
        buildkit("ENV B=1"),
        buildkit("EXPOSE [53/udp 8000-8001/tcp]"),
        buildkit("EXPOSE map[8001/tcp:{}]"),
        nop("VOLUME [/with space]"),
        nop("LABEL a b=2"),
    )
    result = at(5, config, *history)
    assert result.config == {
        "Env": [config["Env"][0], "A=1"],  # type: ignore[index]
        "Labels": {"a b": "1"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/a": {}},
    }
    assert result.guessed == ()


@pytest.mark.parametrize(
    ("config", "history", "guessed"),
    [
        ({"Env": ["A=1 B=2", "B=2"]}, [BASE, nop("ENV A=1 B=2"), nop("ENV A=1 B=2")], {"Env.A", "Env.B"}),
        ({"Cmd": ["/z"]}, [{"comment": "import"}, nop('CMD ["/z"]')], {"Cmd"}),
        ({"User": "z"}, [BASE, nop("USER a"), {"created_by": "/app", "comment": "by hand"}, nop("USER z")], {"User"}),
        ({"User": "other"}, [BASE, nop("USER a"), nop("USER z")], {"User"}),
        ({"Cmd": ["/z"]}, [BASE, nop('CMD ["/a"]'), nop('ENTRYPOINT ["/e"]'), nop('CMD ["/z"]')], {"Cmd"}),
        ({"Labels": {"built": "now"}}, [BASE, COPY], {"Labels.built"}),
        ({"Cmd": ["/z"]}, [BASE, {"created_by": "# debian.sh"}, nop('CMD ["/z"]')], {"Cmd"}),
        ({"Shell": ["/z"]}, [BASE, nop("SHELL [/bin/sh -e -c]"), nop("SHELL [/z]")], {"Shell"}),
    ],
    ids=["pairs", "import", "commit", "contradiction", "entrypoint", "no step", "foreign builder", "shell"],
)
def test_what_the_history_does_not_tell_is_called_a_guess(
    config: dict[str, Any], history: list[dict[str, Any]], guessed: set[str]
) -> None:
    """At the step before the last, each of these values could have been another one."""
    result = replayed(config, history, step=len(history) - 1)
    assert set(result.guessed) == guessed


@pytest.mark.parametrize(
    ("step", "config", "history", "unproven"),
    [
        (1, {"Env": [PATH]}, [IMPORT, nop("USER a")], "Env.PATH"),
        (2, {"Env": [PATH]}, [IMPORT, COPY, nop("USER a")], "Env.PATH"),
        (1, {}, [IMPORT, nop("CMD []")], "Cmd"),
        (1, {}, [IMPORT, nop('ENTRYPOINT ["/e"]')], "Cmd"),
        (2, {}, [BASE, nop("ONBUILD RUN a"), {"created_by": "/bin/sh -c a"}], "OnBuild"),
        (2, {"Labels": {"a": "3"}}, [BASE, buildkit("LABEL a=1"), nop("LABEL a=3")], "Labels.a"),
        (2, {"Labels": {"a": "3"}}, [nop("LABEL a=1"), COPY, nop("LABEL a=3")], "Labels.a"),
        (1, {"Labels": {"a": "3"}}, [COPY, nop("LABEL a=3")], "Labels.a"),
        (1, {"WorkingDir": "/z"}, [COPY, nop("WORKDIR /z")], "WorkingDir"),
        (1, {"Env": ["A=2"]}, [{"created_by": 'ENV A="1"'}, {"created_by": 'ENV A="2"'}], "Env.A"),
        (1, {"Labels": {"a": "2"}}, [{"created_by": "COPY x /"}, {"created_by": "LABEL a=2"}], "Labels.a"),
    ],
    ids=[
        "path of a child",
        "path of a grandchild",
        "emptied by CMD",
        "emptied by ENTRYPOINT",
        "triggers that fired",
        "label of a build over one",
        "label of a build over one before",
        "label of a build",
        "working directory of BuildKit",
        "value as it stands in the Dockerfile",
        "label of another builder",
    ],
)
def test_what_builders_do_without_a_step_is_no_proof(
    step: int, config: dict[str, Any], history: list[dict[str, Any]], unproven: str
) -> None:
    """Default paths, ``--label``, triggers that fired, and what a base brought and a later step emptied."""
    result = at(step, config, *history)
    assert unproven in result.guessed
    assert unproven not in result.exact


def test_the_default_path_is_proven_where_builders_must_have_given_it() -> None:
    """Kept steps of the classic builder, or a history of builders alone."""
    for history in ([IMPORT, nop("USER a"), nop("USER b")], [BASE, COPY], [COPY, COPY]):
        assert "Env.PATH" in at(len(history) - 1, {"Env": [PATH], "User": "b"}, *history).exact


def test_author_and_comment_are_those_of_the_step() -> None:
    """The last step's are not carried over to an image that it did not make."""
    config = {**image_config([layer("a"), layer("b"), layer("c")]), "author": "last", "comment": "by hand"}
    by_commit = {"created_by": "sh", "author": "last", "comment": "by hand"}
    config["history"] = [BASE, {"created_by": "/bin/sh -c true", "author": "early"}, by_commit]
    found = [json.loads(earlier_configuration(compact(config), step=step).document) for step in (1, 2, 3)]
    assert [each.get("author") for each in found] == [None, "early", "last"]
    assert [each.get("comment") for each in found] == [None, None, "by hand"]
    config["history"] = [COPY, buildkit("MAINTAINER last"), COPY, COPY]
    found = [json.loads(earlier_configuration(compact(config), step=step).document) for step in (1, 2, 3, 4)]
    assert [each.get("author") for each in found] == [None, "last", "last", "last"]


@pytest.mark.parametrize("before", ["/bin/sh -c", "/bin/sh -eu -c"], ids=["old shell", "new shell"])
def test_steps_under_a_shell_of_the_image_are_read_as_well(before: str) -> None:
    """The classic builder writes the image's own SHELL before #(nop), and before the commands of RUN."""
    shell = "/bin/sh -eu -c"
    history = (BASE, nop("USER a"), nop("SHELL [/bin/sh -eu -c]", before), {"created_by": f"{shell} true"})
    last = nop("USER z", shell)
    config = {"User": "z", "Shell": ["/bin/sh", "-eu", "-c"]}
    result = at(4, config, *history, last)
    assert result.config == {"User": "a", "Shell": ["/bin/sh", "-eu", "-c"]}
    assert result.guessed == ()


def test_triggers_are_those_of_the_kept_steps() -> None:
    """Later ones go; where building upon an image emptied them, that is a guess."""
    history = (BASE, nop("ONBUILD RUN a"), nop("ONBUILD RUN b"))
    result = at(2, {"OnBuild": ["RUN a", "RUN b"]}, *history)
    assert (result.config, result.guessed) == ({"OnBuild": ["RUN a"]}, ())
    assert at(2, {"OnBuild": ["RUN b"]}, *history).guessed == ("OnBuild",)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_words_quoted_as_go_does_are_read_back(words: list[str]) -> None:
    """Any words, with blanks, quotes, backslashes and control characters."""
    assert quoted_words(f"[{' '.join(map(go_quoted, words))}]") == words


@given(WORDS)
def test_no_text_breaks_the_readers(text: str) -> None:
    """Whatever stands in a history: a value or None, never an exception."""
    for each in (text, f"[{text}]", f'["{text}"]', f'&{{["{text}"] "{text}" "0s" "0s" \'{text}\'}}'):
        quoted_words(each)
        healthcheck(each)
    for instruction in ("CMD", "ENV", "LABEL", "EXPOSE", "VOLUME", "HEALTHCHECK", "SHELL", "WORKDIR", "ONBUILD"):
        at(
            1,
            {"Env": [f"{text}={text}"], "Labels": {text: text}, "Volumes": {text: {}}},
            BASE,
            nop(f"{instruction} {text}"),
        )


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.text(st.characters(codec="utf-8"), max_size=6)), max_size=8))
def test_variables_set_one_by_one_are_those_of_the_step_at_every_step(pairs: list[tuple[str, str]]) -> None:
    """Whatever values hold, what is called exact is what was set."""
    history = [BASE, *(nop(f"ENV {name}={value}") for name, value in pairs)]
    final = dict(pairs)
    for step in range(1, len(history) + 1):
        expected = {f"Env.{name}": value for name, value in pairs[: step - 1]}
        result = replayed({"Env": [f"{name}={value}" for name, value in final.items()]}, history, step=step)
        found = {f"Env.{each.partition('=')[0]}": each.partition("=")[2] for each in result.config.get("Env", ())}
        for name in result.exact:
            assert found.get(name) == expected.get(name)


def test_the_made_archive_reads_with_python_as_well() -> None:
    """It is a plain tar with the three documents at its end."""
    data = golden("podman-4.3.tar")
    image = scan(data).image
    document = earlier_configuration(image.config, step=2).document
    made = b"".join(earlier_image([data], document=document, layers=image.layers[:2], tags=[TAG]))
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        assert tar.getnames()[-3:] == ["oci-layout", "index.json", "manifest.json"]
