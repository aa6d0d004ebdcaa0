"""Lets the old Bazel that Debian and Ubuntu package (bazel-bootstrap 4.2.3) build this tree offline.

That Bazel fetches rule sets from GitHub which Python rules do not use. Each is replaced by a
stand-in of the few names that are loaded. The interpreter, and with it every package from PyPI, is
PEARL_PYTHON, else .venv/bin/python, else python3.11 on the PATH.
"""

_CC = """
cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
"""

_JAVA = """
java_binary = native.java_binary
java_import = native.java_import
java_library = native.java_library
java_runtime = native.java_runtime
java_test = native.java_test
java_toolchain = native.java_toolchain
"""

_PYTHON = """
py_binary = native.py_binary
py_library = native.py_library
py_runtime = native.py_runtime
py_test = native.py_test
"""

_TOOLCHAIN = """
load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")

py_runtime(
    name = "runtime",
    interpreter_path = "{interpreter}",
    python_version = "PY3",
    stub_shebang = "#!{interpreter}",
)

py_runtime_pair(name = "pair", py3_runtime = ":runtime")

toolchain(
    name = "toolchain",
    toolchain = ":pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)
"""

def _stand_in_impl(repository_ctx):
    repository_ctx.file("WORKSPACE", "")
    for path, content in repository_ctx.attr.files.items():
        repository_ctx.file(path, content)

_stand_in = repository_rule(
    implementation = _stand_in_impl,
    attrs = {"files": attr.string_dict()},
)

def _interpreter_impl(repository_ctx):
    root = repository_ctx.path(Label("@//:WORKSPACE")).realpath.dirname
    in_venv = root.get_child(".venv").get_child("bin").get_child("python")
    interpreter = repository_ctx.os.environ.get("PEARL_PYTHON")
    if not interpreter and in_venv.exists:
        interpreter = str(in_venv)
    if not interpreter:
        interpreter = repository_ctx.which("python3.11")
    if not interpreter:
        fail("No Python 3.11 found: run `make test` once, or set PEARL_PYTHON to an interpreter.")
    repository_ctx.file("WORKSPACE", "")
    repository_ctx.file("BUILD", _TOOLCHAIN.format(interpreter = interpreter))

_interpreter = repository_rule(
    implementation = _interpreter_impl,
    environ = ["PEARL_PYTHON", "PATH"],
    local = True,
)

def pearl_repositories():
    """Declares the stand-ins and registers the interpreter."""
    _stand_in(name = "rules_cc", files = {"cc/BUILD": "", "cc/defs.bzl": _CC})
    _stand_in(name = "rules_java", files = {"java/BUILD": "", "java/defs.bzl": _JAVA})
    _stand_in(name = "rules_python", files = {"python/BUILD": "", "python/defs.bzl": _PYTHON})
    _stand_in(
        name = "remote_coverage_tools",
        files = {"BUILD": 'filegroup(name = "coverage_report_generator", visibility = ["//visibility:public"])'},
    )
    _interpreter(name = "pearl_python")
    native.register_toolchains("@pearl_python//:toolchain")
