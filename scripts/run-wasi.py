#!/usr/bin/env python3
"""Runs a WebAssembly program with the files and the environment of this machine, as cargo's runner of a target:

    CARGO_TARGET_WASM32_WASIP1_RUNNER=scripts/run-wasi.py cargo test --target wasm32-wasip1 --test golden

Needs Python's package wasmtime.
"""

import os
import sys

import wasmtime


def main():
    config = wasmtime.Config()
    config.wasm_simd = True
    config.wasm_relaxed_simd = True
    engine = wasmtime.Engine(config)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    wasi = wasmtime.WasiConfig()
    wasi.argv = sys.argv[1:]
    wasi.env = list(os.environ.items())
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    wasi.preopen_dir("/", "/")
    store = wasmtime.Store(engine)
    store.set_wasi(wasi)
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1]))
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as ended:
        sys.exit(ended.code)


main()
