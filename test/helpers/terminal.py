"""Runs a program on a terminal of its own and types into it.

usage: terminal.py STEPS PROGRAM [ARG...]

STEPS is a JSON list of {"expect": text} (wait until it is shown after what was found before),
{"type": text}, {"resize": [rows, cols]} and {"signal": number}. Prints one JSON object: what was
shown, the exit code, and whether the terminal's modes are those from before.
"""
import fcntl, json, os, pty, select, signal, struct, sys, termios, time

STEP_SECS = 30


def resize(fd, rows, cols):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class Terminal:
    def __init__(self, argv):
        self.master, self.other = pty.openpty()
        resize(self.master, 30, 100)
        self.modes = termios.tcgetattr(self.other)
        self.shown = b""
        self.seen = 0
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(self.other, termios.TIOCSCTTY, 0)
            for fd in range(3):
                os.dup2(self.other, fd)
            os.execvp(argv[0], argv)

    def read(self, secs):
        if not select.select([self.master], [], [], secs)[0]:
            return False
        self.shown += os.read(self.master, 65536)
        return True

    def expect(self, text):
        until = time.monotonic() + STEP_SECS
        while True:
            at = self.shown.find(text.encode(), self.seen)
            if at >= 0:
                self.seen = at + len(text.encode())
                return
            if time.monotonic() > until or not self.read(STEP_SECS):
                os.kill(self.pid, signal.SIGKILL)
                sys.exit(f"not shown: {text!r} in {self.shown!r}")

    def end(self):
        until = time.monotonic() + STEP_SECS
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                while self.read(0.2):
                    pass
                return os.waitstatus_to_exitcode(status)
            self.read(0.1)
        os.kill(self.pid, signal.SIGKILL)
        sys.exit(f"it did not end: {self.shown!r}")


steps, argv = json.loads(sys.argv[1]), sys.argv[2:]
terminal = Terminal(argv)
for step in steps:
    if "expect" in step:
        terminal.expect(step["expect"])
    elif "type" in step:
        os.write(terminal.master, step["type"].encode())
    elif "signal" in step:
        os.kill(terminal.pid, step["signal"])
    else:
        resize(terminal.master, *step["resize"])
code = terminal.end()
print(json.dumps({
    "shown": terminal.shown.decode(errors="replace"),
    "code": code,
    "restored": termios.tcgetattr(terminal.other) == terminal.modes,
}))
