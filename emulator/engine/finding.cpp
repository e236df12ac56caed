#include "finding.h"

#include <cstdarg>
#include <cstdio>
#include <dlfcn.h>

#include "launch.h"

namespace emulator {
namespace {

void record_list(Kind kind, const char* format, va_list arguments) {
    Finding& finding = current->finding;
    if (finding.kind != Kind::None) return;
    finding.kind = kind;
    vsnprintf(finding.message, sizeof finding.message, format, arguments);
    if (current->thread) {
        const Dim3 block = current->block->index;
        finding.block[0] = block.x, finding.block[1] = block.y, finding.block[2] = block.z;
        finding.thread = current->thread->number;
    }
    const Origin& origin = current->origin;
    finding.line = origin.place.line();
    if (finding.line) snprintf(finding.file, sizeof finding.file, "%s", origin.place.file_name());
    Dl_info library;
    if (origin.code && dladdr(origin.code, &library)) {
        finding.code_offset = static_cast<const char*>(origin.code) - static_cast<const char*>(library.dli_fbase);
    }
}

}  // namespace

void record(Kind kind, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    record_list(kind, format, arguments);
    va_end(arguments);
}

void report(Kind kind, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    record_list(kind, format, arguments);
    va_end(arguments);
    abandon_thread();
}

void misuse(Place place, const char* format, ...) {
    current->origin = {nullptr, place};
    va_list arguments;
    va_start(arguments, format);
    record_list(Kind::Misuse, format, arguments);
    va_end(arguments);
    abandon_thread();
}

}  // namespace emulator
