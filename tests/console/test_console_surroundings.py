"""Where things are: settings are checked, what `up` writes down is kept from others, and what is missing is said."""

import json
import stat
from pathlib import Path

import pytest

from services.console.checking import read_ledger
from services.console.registry import read_list
from services.console.simulate import read_agencies
from services.console.stack import environment
from services.console.surroundings import Process, Stack, Surroundings, read_record, write_record
from services.console.trouble import Trouble
from services.console.world.population import Agency

STACK = Stack(
    kafka="127.0.0.1:9092",
    topic_prefix="x-",
    databases={"intake": "postgresql://intake:secret@127.0.0.1/intake", "matching": "postgresql://m:s@127.0.0.1/m"},
    processes={"intake": Process(12, 34.5, 8101)},
    own_servers=True,
)


def test_what_up_writes_down_is_read_again_and_only_its_owner_may(tmp_path: Path) -> None:
    write_record(tmp_path / "new", STACK)
    assert read_record(tmp_path / "new") == STACK
    assert [stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new").iterdir()] == [0o600]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"kafka": 1}', '{"kafka": "a:1", "processes": {"intake": {}}}'])
def test_a_record_that_is_spoilt_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(Trouble, match=r"stack\.json cannot be read"):
        read_record(tmp_path)


def test_without_a_stack_the_way_to_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="fieldbridge up"):
        Surroundings.of({"FIELDBRIDGE_HOME": str(tmp_path)}).stack()


def test_the_environment_overrules_what_is_written_down(tmp_path: Path) -> None:
    write_record(tmp_path, STACK)
    settings = {
        "FIELDBRIDGE_HOME": str(tmp_path),
        "FIELDBRIDGE_KAFKA": "broker:9093",
        "FIELDBRIDGE_INTAKE_DATABASE": "postgresql://elsewhere/intake",
    }
    stack = Surroundings.of(settings).stack()
    assert stack.kafka == "broker:9093"
    assert stack.databases == {"intake": "postgresql://elsewhere/intake", "matching": STACK.databases["matching"]}


def test_a_stack_elsewhere_is_known_by_the_environment_alone(tmp_path: Path) -> None:
    settings = {
        "FIELDBRIDGE_HOME": str(tmp_path),
        "FIELDBRIDGE_KAFKA": "a:1,b:2",
        "FIELDBRIDGE_INTAKE_DATABASE": "postgres://elsewhere/intake",
        "FIELDBRIDGE_TOPIC_PREFIX": "p.",
    }
    stack = Surroundings.of(settings).stack()
    assert (stack.kafka, stack.topic("requests")) == ("a:1,b:2", "p.requests")
    with pytest.raises(Trouble, match="FIELDBRIDGE_MATCHING_DATABASE"):
        stack.database("matching")
    with pytest.raises(Trouble, match="not started here"):
        stack.process("reporting")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FIELDBRIDGE_KAFKA", "broker"),
        ("FIELDBRIDGE_KAFKA", "broker:9092,"),
        ("FIELDBRIDGE_KAFKA", "kafka://broker:9092/"),
        ("FIELDBRIDGE_POSTGRES", "mysql://root:hunter2@host"),
        ("FIELDBRIDGE_REPORTING_DATABASE", "hunter2"),
        ("FIELDBRIDGE_TOPIC_PREFIX", "a b"),
    ],
)
def test_a_wrong_setting_is_named_and_a_secret_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(Trouble, match=f"^{name} is .*expected is") as trouble:
        Surroundings.of({name: value})
    assert "hunter2" not in str(trouble.value)


def test_a_home_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Trouble, match="not a folder"):
        Surroundings.of({"FIELDBRIDGE_HOME": str(tmp_path / "file")})


def test_a_service_is_told_of_no_database_but_its_own() -> None:
    given = {"PATH": "/bin", "FIELDBRIDGE_POSTGRES": "postgresql://admin", "FIELDBRIDGE_MATCHING_DATABASE": "x"}
    told = environment(STACK, "intake", given)
    assert told == {
        "PATH": "/bin",
        "FIELDBRIDGE_KAFKA": STACK.kafka,
        "FIELDBRIDGE_TOPIC_PREFIX": "x-",
        "FIELDBRIDGE_INTAKE_DATABASE": STACK.databases["intake"],
    }


# --- files that people name


def test_a_list_of_agencies_is_read_with_the_line_of_each_row(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text('ori,agency_name,agency_type,state\nA,"two\nlines",x,TX\nB,one,y,OK\n', encoding="utf-8-sig")
    assert [(line, row["ori"]) for line, row in read_list(file)] == [(3, "A"), (4, "B")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"ori,state\nA,TX\n", "lacks the columns agency_name, agency_type"),
        (b"", "lacks the columns"),
        (b"ori,agency_name,agency_type,state\nA,\xff,x,TX\n", "not UTF-8"),
        (b'ori,agency_name,agency_type,state\nA,"x\n', "no CSV file"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    with pytest.raises(Trouble, match=says):
        read_list(file)


def test_the_agencies_that_ask_are_read_like_a_list_to_import(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("ori,agency_name,agency_type,state\nTX0000001,Police,municipal,TX\n", encoding="utf-8-sig")
    assert read_agencies(file) == [Agency("TX0000001", "municipal", "TX")]
    for spoilt, says in (
        ("TX0000001,,municipal,TX", "line 2: agency_name"),
        ("TX0000001,a,b", "line 2"),
        ('"x', "no CSV"),
    ):
        file.write_text(f"ori,agency_name,agency_type,state\n{spoilt}\n")
        with pytest.raises(Trouble, match=says):
            read_agencies(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (read_list, read_agencies, read_ledger):
        with pytest.raises(Trouble, match=r"nowhere"):
            read(tmp_path / "nowhere")


def test_a_ledger_is_read_and_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    line = {"source": "/s", "id": "1", "topic": "submissions", "partition": 3, "offset": 4}
    file = tmp_path / "ledger"
    file.write_text(json.dumps(line) + "\n")
    assert [tuple(one) for one in read_ledger(file)] == [("/s", "1", 3, 4)]
    file.write_text(json.dumps(line) + "\nhalf a li")
    with pytest.raises(Trouble, match="line 2"):
        read_ledger(file)
