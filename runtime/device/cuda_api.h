// The part of CUDA's driver API that we use, by name from the system's library: no headers, no link.
#ifndef CRYOLITE_RUNTIME_CUDA_API_H
#define CRYOLITE_RUNTIME_CUDA_API_H

#include "../text.h"

#include <cstddef>
#include <cstdint>

namespace cryolite::runtime {

using CuHandle = void *; // context, stream, module, function, event, graph, executable graph

enum : int32_t { CU_NO_MEMORY = 2, CU_NO_DEVICE = 100, CU_CAPABILITY_MAJOR = 75, CU_CAPABILITY_MINOR = 76 };
enum : int32_t { CU_JIT_ERROR_LOG = 5, CU_JIT_ERROR_LOG_BYTES = 6 };
enum : uint32_t { CU_NON_BLOCKING = 1, CU_CAPTURE_THREAD_LOCAL = 1, CU_NO_TIMING = 2 };

// X(name, parameters): all return a status. The names with _v2 are today's; without, they mean those of CUDA 3.
#define CRYO_CUDA(X)                                                                                                   \
    X(cuInit, (uint32_t))                                                                                              \
    X(cuDriverGetVersion, (int32_t *))                                                                                 \
    X(cuGetErrorString, (int32_t, const char **))                                                                      \
    X(cuDeviceGetCount, (int32_t *))                                                                                   \
    X(cuDeviceGet, (int32_t *, int32_t))                                                                               \
    X(cuDeviceGetName, (char *, int32_t, int32_t))                                                                     \
    X(cuDeviceGetAttribute, (int32_t *, int32_t, int32_t))                                                             \
    X(cuDevicePrimaryCtxRetain, (CuHandle *, int32_t))                                                                 \
    X(cuCtxSetCurrent, (CuHandle))                                                                                     \
    X(cuStreamCreate, (CuHandle *, uint32_t))                                                                          \
    X(cuStreamSynchronize, (CuHandle))                                                                                 \
    X(cuMemAlloc_v2, (uint64_t *, size_t))                                                                             \
    X(cuMemFree_v2, (uint64_t))                                                                                        \
    X(cuMemsetD32Async, (uint64_t, uint32_t, size_t, CuHandle))                                                        \
    X(cuMemcpyHtoDAsync_v2, (uint64_t, const void *, size_t, CuHandle))                                                \
    X(cuMemcpyDtoHAsync_v2, (void *, uint64_t, size_t, CuHandle))                                                      \
    X(cuModuleLoadDataEx, (CuHandle *, const void *, uint32_t, int32_t *, void **))                                    \
    X(cuModuleGetFunction, (CuHandle *, CuHandle, const char *))                                                       \
    X(cuLaunchKernel,                                                                                                  \
      (CuHandle, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, CuHandle, void **, void **))    \
    X(cuEventCreate, (CuHandle *, uint32_t))                                                                           \
    X(cuEventRecord, (CuHandle, CuHandle))                                                                             \
    X(cuEventElapsedTime, (float *, CuHandle, CuHandle))                                                               \
    X(cuStreamWaitEvent, (CuHandle, CuHandle, uint32_t))                                                               \
    X(cuStreamBeginCapture_v2, (CuHandle, uint32_t))                                                                   \
    X(cuStreamEndCapture, (CuHandle, CuHandle *))                                                                      \
    X(cuGraphInstantiateWithFlags, (CuHandle *, CuHandle, uint64_t))                                                   \
    X(cuGraphLaunch, (CuHandle, CuHandle))                                                                             \
    X(cuGraphDestroy, (CuHandle))                                                                                      \
    X(cuGraphExecDestroy, (CuHandle))

struct CudaApi {
#define CRYO_CUDA_MEMBER(name, parameters) int32_t(*name) parameters = nullptr;
    CRYO_CUDA(CRYO_CUDA_MEMBER)
#undef CRYO_CUDA_MEMBER

    // CRYO_NO_DEVICE where the library is missing or too old.
    cryo_status load(Text &error);
};

} // namespace cryolite::runtime
#endif
