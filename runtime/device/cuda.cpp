// CUDA: the device, Halide's functions on it, and what programs name to run there.
#include "cuda_api.h"
#include "model_on_device.h"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <iterator>
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

constexpr size_t none = size_t(-1);
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
    cryo_status begin_recording(Text &error) override;
    cryo_status after(const std::vector<size_t> &notes, Text &error) override;
    cryo_status note(size_t number, Text &error) override;
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
    int32_t event(std::vector<CuHandle> &events, size_t number, uint32_t flags);
    int32_t wait(size_t branch, CuHandle event) { return api_.cuStreamWaitEvent(branches_[branch].stream, event, 0); }
    CuHandle function(Module &module, const char *entry, int32_t &code);

    CudaApi api_;
    CuHandle context_ = nullptr, stream_ = nullptr;
    char name_[256] = "?";
    std::mutex mutex_; // of modules
    std::vector<std::unique_ptr<Module>> modules_;
    std::vector<CuHandle> marks_;

    // A recording has branches, streams of its own; the first begins and ends it.
    struct Branch {
        CuHandle stream = nullptr;
        bool joined = false; // the recording
        size_t last = 0;     // note
    };
    std::mutex recording_; // held from begin to end
    Branch branches_[4];
    std::vector<CuHandle> notes_;     // events, and
    std::vector<size_t> branch_of_;   // by note
    CuHandle began_ = nullptr;        // event
    static thread_local Branch *now_; // where this thread records
};

thread_local Cuda::Branch *Cuda::now_ = nullptr;

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
    if (code == 0) code = api_.cuEventCreate(&began_, CU_NO_TIMING);
    for (Branch &branch : branches_)
        if (code == 0) code = api_.cuStreamCreate(&branch.stream, CU_NON_BLOCKING);
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
                                   uint32_t(shared_bytes), now_ ? now_->stream : stream_, args, nullptr);
    (void)check(code, entry, last_kernel_error);
    return code;
}

int32_t Cuda::event(std::vector<CuHandle> &events, size_t number, uint32_t flags) {
    while (events.size() <= number) {
        CuHandle made = nullptr;
        if (int32_t code = api_.cuEventCreate(&made, flags); code != 0) return code;
        events.push_back(made);
    }
    return 0;
}

cryo_status Cuda::mark(size_t number, Text &error) {
    return run(
        [&] {
            const int32_t code = event(marks_, number, 0);
            return code ? code : api_.cuEventRecord(marks_[number], stream_);
        },
        "taking the time", error);
}

cryo_status Cuda::begin_recording(Text &error) {
    recording_.lock();
    for (Branch &branch : branches_) branch.joined = false, branch.last = none;
    branch_of_.clear();
    now_ = &branches_[0];
    now_->joined = true;
    return run(
        [&] {
            const int32_t code = api_.cuStreamBeginCapture_v2(now_->stream, CU_CAPTURE_THREAD_LOCAL);
            return code ? code : api_.cuEventRecord(began_, now_->stream);
        },
        "recording", error);
}

// Where one of those it comes after was the last, or else in the branch whose last is the oldest.
cryo_status Cuda::after(const std::vector<size_t> &notes, Text &error) {
    size_t chosen = 0;
    for (size_t i = 1; i < std::size(branches_); i++)
        if (branches_[i].last + 1 < branches_[chosen].last + 1) chosen = i; // none is before all
    for (size_t note : notes)
        if (branches_[branch_of_[note]].last == note) chosen = branch_of_[note];
    Branch &branch = branches_[chosen];
    now_ = &branch;
    return run(
        [&] {
            int32_t code = branch.joined ? 0 : wait(chosen, began_);
            branch.joined = true;
            for (size_t note : notes)
                if (code == 0 && branch_of_[note] != chosen) code = wait(chosen, notes_[note]);
            return code;
        },
        "recording", error);
}

cryo_status Cuda::note(size_t number, Text &error) {
    branch_of_.resize(std::max(branch_of_.size(), number + 1));
    branch_of_[number] = size_t(now_ - branches_);
    now_->last = number;
    return run(
        [&] {
            const int32_t code = event(notes_, number, CU_NO_TIMING);
            return code ? code : api_.cuEventRecord(notes_[number], now_->stream);
        },
        "recording", error);
}

cryo_status Cuda::end_recording(Recording &recording, Text &error) {
    std::lock_guard<std::mutex> lock(recording_, std::adopt_lock);
    CuHandle graph = nullptr;
    cryo_status status = run(
        [&] {
            int32_t code = 0;
            for (size_t i = 1; i < std::size(branches_); i++)
                if (code == 0 && branches_[i].last != none) code = wait(0, notes_[branches_[i].last]);
            const int32_t ended = api_.cuStreamEndCapture(branches_[0].stream, &graph);
            return code ? code : ended;
        },
        "recording", error);
    now_ = nullptr;
    if (status == CRYO_OK)
        status = run([&] { return api_.cuGraphInstantiateWithFlags(&recording, graph, 0); }, "recording", error);
    if (graph) (void)api_.cuGraphDestroy(graph);
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
