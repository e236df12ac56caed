// The kernel of a launch that runs PTX: `Launch::program`.
#pragma once

namespace emulator::ptx {

void interpret(const void* arguments);

}  // namespace emulator::ptx
