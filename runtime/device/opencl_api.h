// The part of OpenCL that we use, by name from the system's library: no headers, no link.
#ifndef CRYOLITE_RUNTIME_OPENCL_API_H
#define CRYOLITE_RUNTIME_OPENCL_API_H

#include "../text.h"

#include <cstddef>
#include <cstdint>

namespace cryolite::runtime {

using ClHandle = void *; // platform, device, context, queue, program, kernel

enum : uint64_t { CL_TYPE_CPU = 2, CL_TYPE_GPU = 4, CL_TYPE_ANY = 0xffffffff, CL_SVM_COARSE = 1, CL_READ_WRITE = 1 };
enum : uint32_t { CL_NAME = 0x102b, CL_EXTENSIONS = 0x1030, CL_SVM = 0x1053, CL_BUILD_LOG = 0x1183 };
enum : int32_t { CL_NO_OBJECT_MEMORY = -4, CL_NO_RESOURCES = -5, CL_NO_HOST_MEMORY = -6 };

// X(name, result, parameters)
#define CRYO_OPENCL(X)                                                                                                 \
    X(clGetPlatformIDs, int32_t, (uint32_t, ClHandle *, uint32_t *))                                                   \
    X(clGetDeviceIDs, int32_t, (ClHandle, uint64_t, uint32_t, ClHandle *, uint32_t *))                                 \
    X(clGetDeviceInfo, int32_t, (ClHandle, uint32_t, size_t, void *, size_t *))                                        \
    X(clCreateContext, ClHandle,                                                                                       \
      (const intptr_t *, uint32_t, const ClHandle *, void (*)(const char *, const void *, size_t, void *), void *,     \
       int32_t *))                                                                                                     \
    X(clCreateCommandQueue, ClHandle, (ClHandle, ClHandle, uint64_t, int32_t *))                                       \
    X(clCreateProgramWithSource, ClHandle, (ClHandle, uint32_t, const char **, const size_t *, int32_t *))             \
    X(clBuildProgram, int32_t,                                                                                         \
      (ClHandle, uint32_t, const ClHandle *, const char *, void (*)(ClHandle, void *), void *))                        \
    X(clGetProgramBuildInfo, int32_t, (ClHandle, ClHandle, uint32_t, size_t, void *, size_t *))                        \
    X(clCreateKernel, ClHandle, (ClHandle, const char *, int32_t *))                                                   \
    X(clSetKernelArg, int32_t, (ClHandle, uint32_t, size_t, const void *))                                             \
    X(clSetKernelArgSVMPointer, int32_t, (ClHandle, uint32_t, const void *))                                           \
    X(clEnqueueNDRangeKernel, int32_t,                                                                                 \
      (ClHandle, ClHandle, uint32_t, const size_t *, const size_t *, const size_t *, uint32_t, const ClHandle *,       \
       ClHandle *))                                                                                                    \
    X(clSVMAlloc, void *, (ClHandle, uint64_t, size_t, uint32_t))                                                      \
    X(clSVMFree, void, (ClHandle, void *))                                                                             \
    X(clEnqueueSVMMemcpy, int32_t,                                                                                     \
      (ClHandle, uint32_t, void *, const void *, size_t, uint32_t, const ClHandle *, ClHandle *))                      \
    X(clEnqueueSVMMemFill, int32_t,                                                                                    \
      (ClHandle, void *, const void *, size_t, size_t, uint32_t, const ClHandle *, ClHandle *))                        \
    X(clFinish, int32_t, (ClHandle))

struct OpenClApi {
#define CRYO_OPENCL_MEMBER(name, result, parameters) result(*name) parameters = nullptr;
    CRYO_OPENCL(CRYO_OPENCL_MEMBER)
#undef CRYO_OPENCL_MEMBER

    // CRYO_NO_DEVICE where the library is missing or too old.
    cryo_status load(Text &error);
};

} // namespace cryolite::runtime
#endif
