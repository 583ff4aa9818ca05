"""Everything a process logs goes through one pipe, a fact a line, without secrets."""

import io
import json
import logging
import sys

import pytest

from service.cli.start import set_up_logging
from service.log import Redactor, configure_logging, get_logger
from service.settings import load_settings

SECRET = "api_4kW2mQz9.0f1e2d3c"


pytestmark = pytest.mark.usefixtures("untouched_logging")


def configured(*, log_format="json", level="info", secrets=(SECRET,)) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(log_format=log_format, level=level, secrets=secrets, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in found:
        assert line.pop("timestamp").endswith("Z")
    return found


def test_every_line_says_which_process_it_is_of_where_there_are_several():
    stream = io.StringIO()
    configure_logging(log_format="json", level="info", secrets=(), stream=stream, facts={"pid": 7})
    get_logger("service.app").info("accepted", planned=2)
    logging.getLogger("uvicorn.error").info("Shutting down")
    assert [(line["event"], line["pid"]) for line in lines(stream)] == [("accepted", 7), ("Shutting down", 7)]


def test_a_fact_is_one_json_line():
    stream = configured()
    get_logger("service.app").info("accepted", event_id="ev_1", planned=2, skipped=["a", "b"])
    assert lines(stream) == [
        {
            "event": "accepted",
            "level": "info",
            "logger": "service.app",
            "event_id": "ev_1",
            "planned": 2,
            "skipped": ["a", "b"],
        }
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environ", "coloured"), [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)]
)
def test_lines_on_a_terminal_are_coloured_unless_the_environment_says_no(monkeypatch, environ, coloured):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    set_up_logging(load_settings(environ, needs=(), on_terminal=True))
    get_logger("web").info("listens")
    logging.getLogger("uvicorn.error").info("Shutting down")
    assert ("\x1b[" in terminal.getvalue()) is coloured


def test_libraries_use_the_same_pipe():
    stream = configured()
    logging.getLogger("uvicorn.error").info("listening on %s", "::1")
    assert lines(stream) == [{"event": "listening on ::1", "level": "info", "logger": "uvicorn.error"}]


def test_handlers_that_a_library_brought_are_replaced():
    library = logging.getLogger("rq.worker")
    library.addHandler(logging.StreamHandler(io.StringIO()))
    library.propagate = False
    stream = configured()
    library.warning("worker is slow")
    assert [line["event"] for line in lines(stream)] == ["worker is slow"]
    assert library.handlers == []


@pytest.mark.parametrize("name", ["rq.worker", "httpx", "httpcore.connection", "uvicorn.access"])
def test_a_line_for_every_request_is_not_wanted_from_libraries(name):
    stream = configured(level="debug")
    logging.getLogger(name).info("POST /lead/lead_1/")
    assert lines(stream) == []


@pytest.mark.parametrize(
    ("level", "written"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0), ("critical", 0)]
)
def test_a_level_is_the_least_that_is_written(level, written):
    stream = configured(level=level)
    log = get_logger("service")
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert len(lines(stream)) == written


def test_configuring_again_replaces_what_was_configured():
    first = configured()
    second = configured()
    get_logger("service").info("once")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


def test_a_console_line_is_for_people_and_keeps_secrets_too():
    stream = configured(log_format="console")
    get_logger("service.app").info("accepted", event_id="ev_1", note=SECRET)
    line = stream.getvalue()
    assert "accepted" in line
    assert "event_id=ev_1" in line
    assert SECRET not in line
    assert "\x1b" not in line


def test_lines_go_to_stderr(capsys):
    configure_logging(log_format="json", level="info", secrets=())
    get_logger("service").info("here")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "here"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_neither_secrets_nor_local_variables(log_format):
    stream = configured(log_format=log_format)
    record_value = "Ada" + "Lovelace"
    try:
        {}[f"{SECRET} of {len(record_value)} characters"]
    except KeyError:
        get_logger("service").exception("failed")
        logging.getLogger("redis").exception("failed too")
    text = stream.getvalue()
    assert text.count("KeyError: '*** of 11 characters'") == 2
    assert "Traceback" in text
    assert not [word for word in (SECRET, record_value) if word in text]


def test_an_unknown_level_or_format_is_a_mistake():
    with pytest.raises(ValueError, match="loud"):
        configure_logging(log_format="json", level="loud", secrets=())
    with pytest.raises(ValueError, match="xml"):
        configure_logging(log_format="xml", level="info", secrets=())


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ({"Authorization": "Basic x", "event": "a"}, {"event": "a"}),
        ({"close-sig-hash": "00", "signature_key": "00", "api_key": "x", "password": "x"}, {}),
        ({"headers": {"Close-Sig-Hash": "00", "host": "x"}}, {"headers": {"host": "x"}}),
        ({"event": f"key {SECRET}!"}, {"event": "key ***!"}),
        ({"a": [{"b": (SECRET, 1)}]}, {"a": [{"b": ["***", 1]}]}),
        ({"a": {SECRET}}, {"a": ["***"]}),
        ({SECRET: 1}, {"***": 1}),
        ({"a": ValueError(SECRET)}, {"a": "ValueError('***')"}),
        ({"a": SECRET.encode()}, {"a": "b'***'"}),
        ({"a": f"longer {SECRET}ef"}, {"a": "longer ***"}),
        ({"url": "redis://user:hunter2@x:1/0"}, {"url": "redis://***@x:1/0"}),
        ({"event": "at redis://:a@b@x and y@z"}, {"event": "at redis://***@x and y@z"}),
        ({"a": None, "b": True, "c": 1.5}, {"a": None, "b": True, "c": 1.5}),
        ({"url": "https://x/path/a@b", "id": "ev_1"}, {"url": "https://x/path/a@b", "id": "ev_1"}),
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(line, clean):
    given = dict(line)
    assert Redactor([SECRET, SECRET + "ef"])(None, "info", line) == clean
    assert line == given


def test_short_words_are_not_masked():
    assert Redactor(["", "abc"])(None, "info", {"event": "abc"}) == {"event": "abc"}


def test_a_logger_made_before_logging_was_configured_uses_it():
    log = get_logger("service.early")
    stream = configured()
    log.info("now")
    assert lines(stream) == [{"event": "now", "level": "info", "logger": "service.early"}]
    assert sys.stderr is not stream
