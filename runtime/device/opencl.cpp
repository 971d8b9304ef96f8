// OpenCL: the device, Halide's functions on it, and what programs name to run there.
#include "model_on_device.h"
#include "opencl_api.h"

#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace cryolite::runtime {

cryo_status OpenClApi::load(Text &error) {
    void *library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return error.fail(CRYO_NO_DEVICE, "no OpenCL on this system: %s", dlerror());
#define CRYO_OPENCL_LOAD(name, result, parameters)                                                                     \
    this->name = reinterpret_cast<result(*) parameters>(dlsym(library, #name));                                        \
    if (!this->name) return error.fail(CRYO_NO_DEVICE, "the system's OpenCL is too old: it has no %s", #name);
    CRYO_OPENCL(CRYO_OPENCL_LOAD)
#undef CRYO_OPENCL_LOAD
    return CRYO_OK;
}

namespace {

thread_local Text last_kernel_error;

class OpenCl final : public Device {
public:
    cryo_status open(Text &error);
    int build(void **module, const char *source, size_t size);
    int launch(void *module, const char *entry, const size_t *groups, const size_t *threads, int shared_bytes,
               const size_t *sizes, void **args, const int8_t *is_buffer);

    const char *name() const override { return name_; }
    uintptr_t allocate(size_t bytes) override {
        return reinterpret_cast<uintptr_t>(api_.clSVMAlloc(context_, CL_READ_WRITE, bytes ? bytes : 1, 0));
    }
    void release(uintptr_t memory) override {
        if (memory) api_.clSVMFree(context_, reinterpret_cast<void *>(memory));
    }
    cryo_status clear(uintptr_t memory, size_t bytes, Text &error) override {
        const uint32_t zero = 0;
        if (bytes == 0) return CRYO_OK;
        return check(api_.clEnqueueSVMMemFill(queue_, reinterpret_cast<void *>(memory), &zero, sizeof zero, bytes, 0,
                                              nullptr, nullptr),
                     "clearing memory", error);
    }
    cryo_status upload(uintptr_t to, const void *from, size_t bytes, Text &error) override {
        return copy(reinterpret_cast<void *>(to), from, bytes, error);
    }
    cryo_status download(void *to, uintptr_t from, size_t bytes, Text &error) override {
        return copy(to, reinterpret_cast<const void *>(from), bytes, error);
    }
    cryo_status finish(Text &error) override { return check(api_.clFinish(queue_), "waiting for kernels", error); }
    const char *kernel_error() const override { return last_kernel_error.get(); }
    cryo_status mark(size_t number, Text &error) override {
        if (marks_.size() <= number) marks_.resize(number + 1);
        const cryo_status status = finish(error);
        marks_[number] = seconds_now();
        return status;
    }
    double seconds(size_t from, size_t to) const override { return marks_[to] - marks_[from]; }

private:
    struct Kernel {
        std::string entry;
        ClHandle kernel;
    };
    struct Module {
        ClHandle program;
        std::vector<Kernel> kernels;
    };

    cryo_status copy(void *to, const void *from, size_t bytes, Text &error) {
        if (bytes == 0) return CRYO_OK;
        return check(api_.clEnqueueSVMMemcpy(queue_, 1, to, from, bytes, 0, nullptr, nullptr), "copying", error);
    }
    cryo_status check(int32_t code, const char *what, Text &error) const {
        if (code == 0) return CRYO_OK;
        const bool memory = code == CL_NO_OBJECT_MEMORY || code == CL_NO_RESOURCES || code == CL_NO_HOST_MEMORY;
        return error.fail(memory ? CRYO_OUT_OF_MEMORY : CRYO_DEVICE_ERROR, "%s on '%s': OpenCL error %d", what, name_,
                          code);
    }
    cryo_status find_device(Text &error);
    ClHandle kernel(Module &module, const char *entry, int32_t &code);

    OpenClApi api_;
    ClHandle device_ = nullptr, context_ = nullptr, queue_ = nullptr;
    char name_[256] = "?";
    std::mutex mutex_; // kernels keep their arguments, so only one may be on its way
    std::vector<std::unique_ptr<Module>> modules_;
    std::vector<double> marks_;
};

// The first GPU with shared virtual memory, else any device that has it.
cryo_status OpenCl::find_device(Text &error) {
    constexpr uint32_t most = 16;
    ClHandle platforms[most], devices[most];
    uint32_t platform_count = 0;
    if (api_.clGetPlatformIDs(most, platforms, &platform_count) != 0) platform_count = 0;
    for (uint64_t type : {uint64_t(CL_TYPE_GPU), uint64_t(CL_TYPE_ANY)})
        for (uint32_t p = 0; p < platform_count && p < most; p++) {
            uint32_t count = 0;
            if (api_.clGetDeviceIDs(platforms[p], type, most, devices, &count) != 0) continue;
            for (uint32_t d = 0; d < count && d < most; d++) {
                uint64_t memory = 0;
                if (api_.clGetDeviceInfo(devices[d], CL_SVM, sizeof memory, &memory, nullptr) != 0) continue;
                if (!(memory & CL_SVM_COARSE)) continue;
                device_ = devices[d];
                return CRYO_OK;
            }
        }
    return error.fail(CRYO_NO_DEVICE, "none of the %u OpenCL platforms has a device with shared virtual memory",
                      unsigned(platform_count));
}

cryo_status OpenCl::open(Text &error) {
    cryo_status status = api_.load(error);
    if (status == CRYO_OK) status = find_device(error);
    if (status != CRYO_OK) return status;
    (void)api_.clGetDeviceInfo(device_, CL_NAME, sizeof name_ - 1, name_, nullptr);
    int32_t code = 0;
    context_ = api_.clCreateContext(nullptr, 1, &device_, nullptr, nullptr, &code);
    if (code == 0) queue_ = api_.clCreateCommandQueue(context_, device_, 0, &code);
    return check(code, "opening a queue", error);
}

int OpenCl::build(void **state, const char *source, size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (*state) return 0;
    size = strnlen(source, size);
    int32_t code = 0;
    ClHandle program = api_.clCreateProgramWithSource(context_, 1, &source, &size, &code);
    if (code == 0) code = api_.clBuildProgram(program, 1, &device_, "", nullptr, nullptr);
    if (code != 0) {
        char log[700] = "";
        if (program) (void)api_.clGetProgramBuildInfo(program, device_, CL_BUILD_LOG, sizeof log - 1, log, nullptr);
        last_kernel_error.fail(CRYO_DEVICE_ERROR, "building for '%s': OpenCL error %d: %s", name_, code, log);
        return code;
    }
    modules_.push_back(std::make_unique<Module>(Module{program, {}}));
    *state = modules_.back().get();
    return 0;
}

ClHandle OpenCl::kernel(Module &module, const char *entry, int32_t &code) {
    for (const Kernel &k : module.kernels)
        if (k.entry == entry) return k.kernel;
    ClHandle made = api_.clCreateKernel(module.program, entry, &code);
    if (code == 0) module.kernels.push_back({entry, made});
    return made;
}

int OpenCl::launch(void *state, const char *entry, const size_t *groups, const size_t *threads, int shared_bytes,
                   const size_t *sizes, void **args, const int8_t *is_buffer) {
    std::lock_guard<std::mutex> lock(mutex_);
    int32_t code = 0;
    ClHandle k = kernel(*static_cast<Module *>(state), entry, code);
    uint32_t i = 0;
    for (; code == 0 && sizes[i] != 0; i++) {
        if (is_buffer[i]) // the first member of a buffer is its address on the device
            code = api_.clSetKernelArgSVMPointer(
                k, i, reinterpret_cast<const void *>(uintptr_t(*static_cast<const uint64_t *>(args[i]))));
        else
            code = api_.clSetKernelArg(k, i, sizes[i], args[i]);
    }
    if (code == 0) code = api_.clSetKernelArg(k, i, size_t(shared_bytes > 0 ? shared_bytes : 1), nullptr);
    if (code == 0) {
        const size_t all[3] = {groups[0] * threads[0], groups[1] * threads[1], groups[2] * threads[2]};
        if (all[0] && all[1] && all[2])
            code = api_.clEnqueueNDRangeKernel(queue_, k, 3, nullptr, all, threads, 0, nullptr, nullptr);
    }
    (void)check(code, entry, last_kernel_error);
    return code;
}

OpenCl *the_device(Text &error) {
    struct Opened {
        OpenCl device; // never destroyed: kernels' static state points into it
        Text error;
        cryo_status status = device.open(error);
    };
    static Opened *opened = new Opened;
    if (opened->status == CRYO_OK) return &opened->device;
    error = opened->error;
    return nullptr;
}

} // namespace

Device *Device::opencl(Text &error) { return the_device(error); }

} // namespace cryolite::runtime

// Halide's names.
using namespace cryolite::runtime;

extern "C" {

const void *halide_opencl_device_interface() { return nullptr; }

int halide_opencl_initialize_kernels(void *, void **state, const char *source, int size) {
    OpenCl *device = the_device(last_kernel_error);
    return device ? device->build(state, source, size_t(size)) : -1;
}
void halide_opencl_finalize_kernels(void *, void *) {}

int halide_opencl_run(void *, void *state, const char *entry, int groups_x, int groups_y, int groups_z, int threads_x,
                      int threads_y, int threads_z, int shared_bytes, size_t sizes[], void *args[],
                      int8_t is_buffer[]) {
    OpenCl *device = the_device(last_kernel_error);
    const size_t groups[] = {size_t(groups_x), size_t(groups_y), size_t(groups_z)};
    const size_t threads[] = {size_t(threads_x), size_t(threads_y), size_t(threads_z)};
    return device ? device->launch(state, entry, groups, threads, shared_bytes, sizes, args, is_buffer) : -1;
}

const cryo_device cryo_opencl = {
    [](const cryo_program &program, uint8_t *parameters, std::unique_ptr<DeviceModel> &model, Text &error) {
        Device *device = the_device(error);
        return device ? open_on(*device, program, parameters, model, error) : CRYO_NO_DEVICE;
    }};
}
