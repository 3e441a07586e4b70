"""What berth needs of ctypes, by the compiled half of it alone.

The package makes thirty types where these are enough, and loads three modules more: a tenth of what the start
of a command takes, and memory of every process. To a type checker they are the package's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL as Library  # noqa: N811
    from ctypes import (
        Array,
        Structure,
        addressof,
        byref,
        c_char,
        c_char_p,
        c_int,
        c_int32,
        c_long,
        c_uint32,
        c_uint64,
        c_ulong,
        c_ushort,
        create_string_buffer,
        get_errno,
        sizeof,
    )
    from ctypes import PyDLL as LibraryHeld
else:
    from _ctypes import (
        FUNCFLAG_CDECL,
        FUNCFLAG_PYTHONAPI,
        FUNCFLAG_USE_ERRNO,
        Array,
        CFuncPtr,
        Structure,
        _SimpleCData,
        addressof,
        byref,
        dlopen,
        get_errno,
        sizeof,
    )

    class c_char(_SimpleCData):
        _type_ = "c"

    class c_char_p(_SimpleCData):
        _type_ = "z"

    class c_ushort(_SimpleCData):
        _type_ = "H"

    class c_int(_SimpleCData):
        _type_ = "i"

    class c_uint32(_SimpleCData):
        _type_ = "I"

    class c_long(_SimpleCData):
        _type_ = "l"

    class c_ulong(_SimpleCData):
        _type_ = "L"

    class c_uint64(_SimpleCData):
        _type_ = "Q"

    c_int32 = c_int

    def create_string_buffer(content, size=None):
        """Return an array of ``size`` characters that begins with ``content``, or of so many zeros."""
        if isinstance(content, int):
            return (c_char * content)()
        buffer = (c_char * (len(content) + 1 if size is None else size))()
        buffer.raw = content.ljust(len(buffer), b"\0")
        return buffer

    class _Function(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
        _restype_ = c_int

    class _FunctionHeld(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI
        _restype_ = c_int

    class Library:
        """A library of this process, or the process itself; its functions are attributes."""

        _function = _Function

        def __init__(self, name, *, use_errno):
            assert use_errno
            self._handle = dlopen(name, 0)

        def __getattr__(self, name):
            function = self._function((name, self))
            setattr(self, name, function)
            return function

    class LibraryHeld(Library):
        """One whose functions keep the interpreter's lock."""

        _function = _FunctionHeld


__all__ = [
    "Array",
    "Library",
    "LibraryHeld",
    "Structure",
    "addressof",
    "byref",
    "c_char",
    "c_char_p",
    "c_int",
    "c_int32",
    "c_long",
    "c_uint32",
    "c_uint64",
    "c_ulong",
    "c_ushort",
    "create_string_buffer",
    "get_errno",
    "sizeof",
]
