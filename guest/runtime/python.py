"""The warm Python interpreter of a guest: evaluates code that the agent sends over descriptor 3.

One JSON object a line, both ways; docs/guest-protocol.md, "Runtimes". Python 3.6 or newer, standard
library only. Arguments: modules to import; one with a leading "?" may be missing.
"""
import ast
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
import types

LINE_BYTES_MAX = 4 * 1024 * 1024
# A result that does not fit a line is cut to this many characters, which do, however escaped.
TEXT_CHARS_MAX = 96 * 1024
# Words of the state of numpy's legacy generator, a Mersenne Twister of period 2^19937 - 1.
MT19937_WORDS = 624
READ_BYTES = 64 * 1024
# CPython 3.11 and newer specialise a function after eight calls.
REHEARSALS = 9

_pid = os.getpid()
_busy = False
_channel = socket.socket(fileno=3)
os.set_inheritable(3, False)


def _on_interrupt(_signum, _frame):
    # Late interrupts, for an eval that has ended, are not for the next one.
    if _busy:
        raise KeyboardInterrupt


# Made once: json.dumps makes one at each call that has options.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_strictly = json.JSONEncoder(allow_nan=False).encode


def _send(message):
    data = _encode(message)
    if len(data) >= LINE_BYTES_MAX:
        message["result_json"] = None
        for key in ("result", "error", "traceback"):
            text = message.get(key)
            if text is not None and len(text) > TEXT_CHARS_MAX:
                message[key] = text[:TEXT_CHARS_MAX] + "... (cut, %d characters)" % len(text)
        data = _encode(message)
    _channel.sendall(data.encode("ascii") + b"\n")


def _import_all(names, namespace):
    for name in names:
        optional = name.startswith("?")
        name = name.lstrip("?")
        try:
            importlib.import_module(name)
        except ImportError:
            if optional:
                continue
            raise
        top = name.split(".")[0]
        namespace[top] = sys.modules[top]
        if top == "numpy":
            namespace["np"] = sys.modules[top]


def _flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def _run(code, namespace):
    """Runs `code`; the value of its last statement, if that is an expression, else None."""
    try:
        # The common case by itself: building a tree costs a fresh fork more than all the rest.
        expression = compile(code.strip(), "<eval>", "eval")
    except SyntaxError:
        expression = None
    # Not above: an error of the code is not one that came while another was handled.
    return _run_statements(code, namespace) if expression is None else eval(expression, namespace)


def _run_statements(code, namespace):
    tree = ast.parse(code, "<eval>", "exec")
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    if tree.body:
        exec(compile(tree, "<eval>", "exec"), namespace)
    return None if last is None else eval(compile(last, "<eval>", "eval"), namespace)


def _to_json(value):
    try:
        return _encode_strictly(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _evaluate(code, namespace):
    global _busy
    reply = {"ok": False, "result": None, "result_json": None, "error": None, "traceback": None}
    try:
        _busy = True
        value = _run(code, namespace)
        reply["result"] = repr(value)
        reply["result_json"] = _to_json(value)
        reply["ok"] = True
    except BaseException as error:  # Also SystemExit and KeyboardInterrupt: the interpreter stays.
        _busy = False
        reply["result"] = reply["result_json"] = None
        kind = type(error).__name__
        try:
            reply["error"] = "%s: %s" % (kind, error)
        except Exception:
            reply["error"] = kind
        # The frames of this file, and of the parser, are no business of the caller.
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename in (__file__, ast.__file__):
            tb = tb.tb_next
        reply["traceback"] = "".join(traceback.format_exception(type(error), error, tb))
    finally:
        _busy = False
    _flush()
    return reply


def _reseed(seed_hex):
    """Gives every generator that this process has its own state; names what it touched.

    What reads the kernel (os.urandom, secrets, uuid4) needs nothing. Out of reach: the hash seed of
    str, and generators that the code made itself, such as numpy.random.default_rng().
    """
    done = []
    seed = bytes.fromhex(seed_hex)
    modules = sys.modules
    if "random" in modules:
        # A number, because bytes would be hashed first: code that a fresh fork has to warm up.
        modules["random"].seed(int.from_bytes(seed, "little"))
        done.append("random")
    if "numpy.random" in modules:
        # The whole state at once: seed() would derive it from less, through far more code.
        key = modules["numpy"].frombuffer(os.urandom(4 * MT19937_WORDS), dtype="uint32")
        modules["numpy.random"].set_state(("MT19937", key, MT19937_WORDS))
        done.append("numpy.random")
    if "torch" in modules and hasattr(modules["torch"], "manual_seed"):
        modules["torch"].manual_seed(int.from_bytes(seed[12:20], "little") >> 1)
        done.append("torch")
    if "ssl" in modules:
        modules["ssl"].RAND_add(seed + os.urandom(32), 32.0)
        done.append("ssl")
    if "uuid" in modules:
        modules["uuid"]._node = None
        modules["uuid"]._last_timestamp = None
        done.append("uuid")
    if "tempfile" in modules:
        modules["tempfile"]._name_sequence = None
        done.append("tempfile")
    return done


def _lines():
    """The agent's lines, until it closes the channel."""
    pending = b""
    while True:
        chunk = _channel.recv(READ_BYTES)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8")


def _serve(namespace):
    for line in _lines():
        request = json.loads(line)
        reply = {"id": request["id"]}
        if request["op"] == "eval":
            reply.update(_evaluate(request["code"], namespace))
            if os.getpid() != _pid:
                os._exit(0)  # A fork made by the code came back here: only the parent answers.
        elif request["op"] == "reseed":
            try:
                reply.update(ok=True, reseeded=_reseed(request["seed"]))
            except Exception as error:
                reply.update(ok=False, error=repr(error), reseeded=[])
        else:
            reply.update(ok=False, error="unknown op", reseeded=[])
        _send(reply)


def _rehearse():
    """Goes once through all that a fresh fork does first, so that a fork only repeats it.

    The interpreter specialises code that has run a few times, allocates what it needs and loads
    what it had put off: in the parent once, rather than in every child.
    """
    for _ in range(REHEARSALS):
        reseeded = _reseed(os.urandom(32).hex())
        _encode({"id": 0, "ok": True, "reseeded": reseeded})
        _encode(_evaluate("[0.0, None, 'x']", {}))


def _main():
    signal.signal(signal.SIGINT, _on_interrupt)
    # Who follows an evaluation sees its lines as they are printed, as at a terminal.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    module = types.ModuleType("__main__")
    names = sys.argv[1:]
    sys.argv = [""]
    # The directory of this file is not where the code's own modules are; its working directory is.
    sys.path[0] = ""
    namespace = module.__dict__
    namespace["__builtins__"] = __builtins__
    try:
        _import_all(names, namespace)
    except BaseException as error:
        traceback.print_exc()
        _send({"ready": False, "error": "%s: %s" % (type(error).__name__, error)})
        return 1
    sys.modules["__main__"] = module
    _rehearse()
    # What was imported stays for good: left out of later collections, its pages stay shared.
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()
    numpy = getattr(sys.modules.get("numpy"), "__version__", None)
    version = "%d.%d.%d" % sys.version_info[:3]
    detail = "python %s (%s)" % (version, sys.executable)
    if numpy:
        detail += ", numpy %s" % numpy
    _send({"ready": True, "detail": detail, "numpy_version": numpy})
    _serve(namespace)
    return 0


sys.exit(_main())
