"""A process in a folder of its own, which ends with its `with` block."""


class Running:
    """A subclass sets `proc` and `folder`."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.kill()
        self.proc.wait()
        self.folder.cleanup()
