// CUDA: the device, Halide's functions on it, and what programs name to run there.
#include "cuda_api.h"
#include "model_on_device.h"

#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace cryolite::runtime {

cryo_status CudaApi::load(Text &error) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return error.fail(CRYO_NO_DEVICE, "no CUDA on this system: %s", dlerror());
#define CRYO_CUDA_LOAD(name, parameters)                                                                               \
    this->name = reinterpret_cast<int32_t(*) parameters>(dlsym(library, #name));                                       \
    if (!this->name) return error.fail(CRYO_NO_DEVICE, "the system's CUDA driver is too old: it has no %s", #name);
    CRYO_CUDA(CRYO_CUDA_LOAD)
#undef CRYO_CUDA_LOAD
    return CRYO_OK;
}

namespace {

thread_local Text last_kernel_error;

constexpr int32_t least_capability = 80; // what target cuda makes PTX for: 8.0

class Cuda final : public Device {
public:
    cryo_status open(Text &error);
    int build(void **module, const char *ptx);
    int launch(void *module, const char *entry, const uint32_t *groups, const uint32_t *threads, int shared_bytes,
               void **args);

    const char *name() const override { return name_; }
    uintptr_t allocate(size_t bytes) override {
        uint64_t memory = 0;
        return enter() == 0 && api_.cuMemAlloc_v2(&memory, bytes ? bytes : 1) == 0 ? uintptr_t(memory) : 0;
    }
    void release(uintptr_t memory) override {
        if (memory && enter() == 0) (void)api_.cuMemFree_v2(memory);
    }
    cryo_status clear(uintptr_t memory, size_t bytes, Text &error) override {
        if (bytes == 0) return CRYO_OK;
        return run([&] { return api_.cuMemsetD32Async(memory, 0, bytes / 4, stream_); }, "clearing memory", error);
    }
    // From memory that may be paged out the driver takes the bytes at once.
    cryo_status upload(uintptr_t to, const void *from, size_t bytes, Text &error) override {
        if (bytes == 0) return CRYO_OK;
        return run([&] { return api_.cuMemcpyHtoDAsync_v2(to, from, bytes, stream_); }, "copying to it", error);
    }
    cryo_status download(void *to, uintptr_t from, size_t bytes, Text &error) override {
        if (bytes == 0) return CRYO_OK;
        cryo_status status =
            run([&] { return api_.cuMemcpyDtoHAsync_v2(to, from, bytes, stream_); }, "copying from it", error);
        return status == CRYO_OK ? finish(error) : status;
    }
    cryo_status finish(Text &error) override {
        return run([&] { return api_.cuStreamSynchronize(stream_); }, "waiting for kernels", error);
    }
    const char *kernel_error() const override { return last_kernel_error.get(); }

    cryo_status mark(size_t number, Text &error) override;
    double seconds(size_t from, size_t to) const override {
        float milliseconds = 0;
        (void)api_.cuEventElapsedTime(&milliseconds, marks_[from], marks_[to]);
        return double(milliseconds) * 1e-3;
    }

    bool records() const override { return true; }
    cryo_status begin_recording(Text &error) override {
        return run([&] { return api_.cuStreamBeginCapture_v2(stream_, CU_CAPTURE_THREAD_LOCAL); }, "recording", error);
    }
    cryo_status end_recording(Recording &recording, Text &error) override;
    cryo_status replay(Recording recording, Text &error) override {
        return run([&] { return api_.cuGraphLaunch(recording, stream_); }, "replaying a step", error);
    }
    void forget(Recording recording) override {
        if (recording && enter() == 0) (void)api_.cuGraphExecDestroy(recording);
    }

private:
    struct Function {
        std::string entry;
        CuHandle function;
    };
    struct Module {
        CuHandle module;
        std::vector<Function> functions;
    };

    // Any thread may call.
    int32_t enter() const { return api_.cuCtxSetCurrent(context_); }
    template <class Call> cryo_status run(Call call, const char *what, Text &error) const {
        int32_t code = enter();
        if (code == 0) code = call();
        return check(code, what, error);
    }
    cryo_status check(int32_t code, const char *what, Text &error) const {
        if (code == 0) return CRYO_OK;
        const char *text = nullptr;
        (void)api_.cuGetErrorString(code, &text);
        return error.fail(code == CU_NO_MEMORY ? CRYO_OUT_OF_MEMORY : CRYO_DEVICE_ERROR,
                          "%s on '%s': CUDA error %d%s%s", what, name_, code, text ? ", " : "", text ? text : "");
    }
    cryo_status find_device(int32_t &device, Text &error);
    CuHandle function(Module &module, const char *entry, int32_t &code);

    CudaApi api_;
    CuHandle context_ = nullptr, stream_ = nullptr;
    char name_[256] = "?";
    std::mutex mutex_; // of modules
    std::vector<std::unique_ptr<Module>> modules_;
    std::vector<CuHandle> marks_;
};

// The first device that our PTX runs on.
cryo_status Cuda::find_device(int32_t &device, Text &error) {
    int32_t version = 0, count = 0;
    if (int32_t code = api_.cuInit(0); code != 0) {
        const char *text = nullptr;
        (void)api_.cuGetErrorString(code, &text);
        return error.fail(CRYO_NO_DEVICE, "CUDA does not start: error %d%s%s", code, text ? ", " : "",
                          text ? text : "");
    }
    (void)api_.cuDriverGetVersion(&version);
    (void)api_.cuDeviceGetCount(&count);
    for (int32_t i = 0; i < count; i++) {
        int32_t major = 0, minor = 0;
        if (api_.cuDeviceGet(&device, i) != 0) continue;
        (void)api_.cuDeviceGetAttribute(&major, CU_CAPABILITY_MAJOR, device);
        (void)api_.cuDeviceGetAttribute(&minor, CU_CAPABILITY_MINOR, device);
        if (major * 10 + minor >= least_capability) return CRYO_OK;
    }
    return error.fail(CRYO_NO_DEVICE, "none of the %d CUDA devices has compute capability %d.%d (CUDA %d.%d)", count,
                      least_capability / 10, least_capability % 10, version / 1000, version % 1000 / 10);
}

cryo_status Cuda::open(Text &error) {
    int32_t device = 0;
    cryo_status status = api_.load(error);
    if (status == CRYO_OK) status = find_device(device, error);
    if (status != CRYO_OK) return status;
    (void)api_.cuDeviceGetName(name_, sizeof name_ - 1, device);
    int32_t code = api_.cuDevicePrimaryCtxRetain(&context_, device);
    if (code == 0) code = enter();
    if (code == 0) code = api_.cuStreamCreate(&stream_, CU_NON_BLOCKING);
    return check(code, "opening a stream", error);
}

int Cuda::build(void **state, const char *ptx) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (*state) return 0;
    char log[700] = "";
    int32_t options[] = {CU_JIT_ERROR_LOG, CU_JIT_ERROR_LOG_BYTES};
    void *values[] = {log, reinterpret_cast<void *>(sizeof log - 1)};
    CuHandle module = nullptr;
    int32_t code = enter();
    if (code == 0) code = api_.cuModuleLoadDataEx(&module, ptx, 2, options, values);
    if (code != 0) {
        Text why;
        (void)check(code, "building", why);
        last_kernel_error.fail(CRYO_DEVICE_ERROR, "%s: %s", why.get(), log);
        return code;
    }
    modules_.push_back(std::make_unique<Module>(Module{module, {}}));
    *state = modules_.back().get();
    return 0;
}

CuHandle Cuda::function(Module &module, const char *entry, int32_t &code) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const Function &f : module.functions)
        if (f.entry == entry) return f.function;
    CuHandle made = nullptr;
    code = api_.cuModuleGetFunction(&made, module.module, entry);
    if (code == 0) module.functions.push_back({entry, made});
    return made;
}

// args: pointers to what the kernel takes. Those of buffers point to their first member, the address on the device.
int Cuda::launch(void *state, const char *entry, const uint32_t *groups, const uint32_t *threads, int shared_bytes,
                 void **args) {
    int32_t code = enter();
    CuHandle f = code == 0 ? function(*static_cast<Module *>(state), entry, code) : nullptr;
    if (code == 0 && groups[0] && groups[1] && groups[2])
        code = api_.cuLaunchKernel(f, groups[0], groups[1], groups[2], threads[0], threads[1], threads[2],
                                   uint32_t(shared_bytes), stream_, args, nullptr);
    (void)check(code, entry, last_kernel_error);
    return code;
}

cryo_status Cuda::mark(size_t number, Text &error) {
    return run(
        [&] {
            int32_t code = 0;
            while (code == 0 && marks_.size() <= number) {
                CuHandle made = nullptr;
                code = api_.cuEventCreate(&made, 0);
                if (code == 0) marks_.push_back(made);
            }
            return code ? code : api_.cuEventRecord(marks_[number], stream_);
        },
        "taking the time", error);
}

cryo_status Cuda::end_recording(Recording &recording, Text &error) {
    CuHandle graph = nullptr;
    cryo_status status = run([&] { return api_.cuStreamEndCapture(stream_, &graph); }, "recording", error);
    if (status != CRYO_OK) return status;
    status = run([&] { return api_.cuGraphInstantiateWithFlags(&recording, graph, 0); }, "recording", error);
    (void)api_.cuGraphDestroy(graph);
    return status;
}

Cuda *the_device(Text &error) {
    struct Opened {
        Cuda device; // never destroyed: kernels' static state points into it
        Text error;
        cryo_status status = device.open(error);
    };
    static Opened *opened = new Opened;
    if (opened->status == CRYO_OK) return &opened->device;
    error = opened->error;
    return nullptr;
}

} // namespace

Device *Device::cuda(Text &error) { return the_device(error); }

} // namespace cryolite::runtime

// Halide's names.
using namespace cryolite::runtime;

extern "C" {

const void *halide_cuda_device_interface() { return nullptr; }

int halide_cuda_initialize_kernels(void *, void **state, const char *ptx, int) {
    Cuda *device = the_device(last_kernel_error);
    return device ? device->build(state, ptx) : -1;
}
void halide_cuda_finalize_kernels(void *, void *) {}

int halide_cuda_run(void *, void *state, const char *entry, int groups_x, int groups_y, int groups_z, int threads_x,
                    int threads_y, int threads_z, int shared_bytes, size_t[], void *args[], int8_t[]) {
    Cuda *device = the_device(last_kernel_error);
    const uint32_t groups[] = {uint32_t(groups_x), uint32_t(groups_y), uint32_t(groups_z)};
    const uint32_t threads[] = {uint32_t(threads_x), uint32_t(threads_y), uint32_t(threads_z)};
    return device ? device->launch(state, entry, groups, threads, shared_bytes, args) : -1;
}

const cryo_device cryo_cuda = {
    [](const cryo_program &program, uint8_t *parameters, std::unique_ptr<DeviceModel> &model, Text &error) {
        Device *device = the_device(error);
        return device ? open_on(*device, program, parameters, model, error) : CRYO_NO_DEVICE;
    }};
}
