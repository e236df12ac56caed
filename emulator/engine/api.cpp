// The C interface of a kernel library, for the Rust side (emulator/src/lib.rs).
#include <cstring>

#include "finding.h"
#include "global_memory.h"
#include "kernel_table.h"
#include "launch.h"

extern "C" {

extern const emulator::Kernel emulator_kernels[];

emulator::GlobalMemory* emulator_device_new() { return new emulator::GlobalMemory; }

void emulator_device_free(emulator::GlobalMemory* device) { delete device; }

// A buffer with a copy of `initial`, or uninitialised where it is null; null if there is no room.
void* emulator_allocate(emulator::GlobalMemory* device, const char* name, size_t bytes, const void* initial,
                        bool writable) {
    return device->allocate(name, bytes, initial, writable);
}

// Takes a buffer away by its start; whether there is one.
bool emulator_release(emulator::GlobalMemory* device, void* address) { return device->release(address); }

// Whether the host may copy to or from there, in the order of the launches.
void emulator_check(emulator::GlobalMemory* device, const void* address, size_t bytes, bool write,
                    emulator::Finding* finding) {
    *finding = emulator::Finding{};
    device->host_access(address, bytes, write, *finding);
}

// Runs a kernel. `finding->kind` tells whether something was found.
void emulator_launch(emulator::GlobalMemory* device, const char* name, const emulator::Shape* shape,
                     const void* arguments, size_t argument_bytes, emulator::Finding* finding) {
    using emulator::Finding;
    using emulator::Kind;
    *finding = Finding{};
    const emulator::Kernel* kernel = emulator_kernels;
    while (kernel->name && strcmp(kernel->name, name) != 0) ++kernel;
    const auto refuse = [&](const char* format, auto... values) {
        finding->kind = Kind::Setup;
        snprintf(finding->message, sizeof finding->message, format, values...);
    };
    if (!kernel->name) return refuse("there is no kernel `%s`", name);
    if (kernel->argument_bytes != argument_bytes) {
        return refuse("kernel `%s` takes %zu bytes of arguments, not %zu", name, kernel->argument_bytes,
                      argument_bytes);
    }
    emulator::launch_kernel(*device, *shape, {kernel->call, nullptr}, {arguments, argument_bytes}, *finding);
}

}  // extern "C"
