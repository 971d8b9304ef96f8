# Every source file of the libraries, tools and tests, sorted; the test `sources` compares them with the folders.
# Paths from the top folder. A new file is one new line here.
set(source_lists runtime device generator compiler data main tool
    runtime_test tool_test kernel_test compiler_test model_test device_test test_support network_test tuner_test)

set(runtime_sources
    runtime/checkpoint_header.cpp
    runtime/context.cpp
    runtime/executor.cpp
    runtime/file.cpp
    runtime/finite.cpp
    runtime/halide_error.cpp
    runtime/initialise.cpp
    runtime/json.cpp
    runtime/load.cpp
    runtime/model.cpp
    runtime/parameters.cpp
    runtime/pool.cpp
    runtime/program.cpp
    runtime/save.cpp
    runtime/step.cpp
    runtime/text.cpp
)

set(device_sources
    runtime/device/cuda.cpp
    runtime/device/device_plan.cpp
    runtime/device/kernel_functions.cpp
    runtime/device/model_on_device.cpp
    runtime/device/opencl.cpp
)

set(generator_sources
    generators/algorithms_adaptive.cpp
    generators/algorithms_math.cpp
    generators/algorithms_pointwise.cpp
    generators/algorithms_pool.cpp
    generators/batch_stats_generator.cpp
    generators/channels_algorithm.cpp
    generators/channels_chunks.cpp
    generators/channels_conv2d_generator.cpp
    generators/channels_direct.cpp
    generators/channels_generator.cpp
    generators/channels_schedule.cpp
    generators/channels_winograd.cpp
    generators/conv2d_generator.cpp
    generators/conv2d_gpu.cpp
    generators/conv2d_grad_weight_generator.cpp
    generators/conv2d_turned.cpp
    generators/gpu.cpp
    generators/lanes.cpp
    generators/linear_generator.cpp
    generators/linear_grad_weight_generator.cpp
    generators/linear_tiles_generator.cpp
    generators/loss_generator.cpp
    generators/nest.cpp
    generators/pointwise_block.cpp
    generators/pointwise_generator.cpp
    generators/pointwise_gpu.cpp
    generators/pointwise_kernel.cpp
    generators/pointwise_whole.cpp
    generators/prefetch.cpp
    generators/program.cpp
    generators/reduce_generator.cpp
    generators/schedule.cpp
    generators/scratch.cpp
    generators/sgd_generator.cpp
    generators/standalone_generators.cpp
    generators/transpose_generator.cpp
    generators/tuning.cpp
    generators/turn.cpp
    generators/winograd.cpp
    generators/winograd_generator.cpp
    generators/winograd_grad_generator.cpp
    generators/winograd_transform.cpp
)

set(compiler_sources
    compiler/cache.cpp
    compiler/choices.cpp
    compiler/codegen.cpp
    compiler/compile.cpp
    compiler/emit_program.cpp
    compiler/graph.cpp
    compiler/header.cpp
    compiler/in_place.cpp
    compiler/initializer.cpp
    compiler/interpret.cpp
    compiler/jit.cpp
    compiler/layers.cpp
    compiler/memory.cpp
    compiler/network.cpp
    compiler/objects.cpp
    compiler/op.cpp
    compiler/ops/adaptive_pool.cpp
    compiler/ops/batch_norm.cpp
    compiler/ops/channels.cpp
    compiler/ops/common.cpp
    compiler/ops/concat.cpp
    compiler/ops/conv2d.cpp
    compiler/ops/conv2d_common.cpp
    compiler/ops/conv2d_grad_input.cpp
    compiler/ops/conv2d_grad_weight.cpp
    compiler/ops/conv2d_winograd.cpp
    compiler/ops/conv2d_winograd_grad.cpp
    compiler/ops/elementwise.cpp
    compiler/ops/grammar.cpp
    compiler/ops/linear.cpp
    compiler/ops/loss.cpp
    compiler/ops/pointwise.cpp
    compiler/ops/pool.cpp
    compiler/ops/reduce.cpp
    compiler/ops/sgd.cpp
    compiler/ops/swap_channels.cpp
    compiler/parameter_table.cpp
    compiler/passes/append_programs.cpp
    compiler/passes/apply_optimizer.cpp
    compiler/passes/channels.cpp
    compiler/passes/differentiate.cpp
    compiler/passes/fold_channels.cpp
    compiler/passes/fuse.cpp
    compiler/passes/lower.cpp
    compiler/passes/mask_padding.cpp
    compiler/passes/rematerialize.cpp
    compiler/passes/select_mode.cpp
    compiler/passes/simplify.cpp
    compiler/pipeline.cpp
    compiler/plan.cpp
    compiler/plan_cost.cpp
    compiler/plan_text.cpp
    compiler/program_text.cpp
    compiler/schedule_database.cpp
    compiler/schedules.cpp
    compiler/stored.cpp
    compiler/text.cpp
    compiler/times.cpp
    compiler/tune/child.cpp
    compiler/tune/duel.cpp
    compiler/tune/kernel_arguments.cpp
    compiler/tune/machine_code.cpp
    compiler/tune/search.cpp
    compiler/tune/step_tuner.cpp
    compiler/tune/tuner.cpp
    compiler/verify.cpp
    compiler/views.cpp
)

set(data_sources
    compiler/data/idx.cpp
    compiler/data/whole_file.cpp
)

set(main_sources
    compiler/commands/bench_command.cpp
    compiler/commands/command.cpp
    compiler/commands/compile_command.cpp
    compiler/commands/eval_command.cpp
    compiler/commands/inspect_command.cpp
    compiler/commands/loaded_network.cpp
    compiler/commands/step_profile.cpp
    compiler/commands/train_command.cpp
    compiler/commands/trainer.cpp
    compiler/commands/training_log.cpp
    compiler/commands/tune_command.cpp
    compiler/main.cpp
    compiler/progress.cpp
)

set(tool_sources
    tools/curves.cpp
    tools/curves_main.cpp
    tools/machine.cpp
    tools/profile_picture.cpp
    tools/svg.cpp
)

# The runtime alone, with programs made by hand.
set(runtime_test_sources
    tests/runtime_allocation_test.cpp
    tests/runtime_checkpoint_test.cpp
    tests/runtime_halide_error_test.cpp
    tests/runtime_open_test.cpp
    tests/runtime_samples_test.cpp
    tests/runtime_shares_test.cpp
    tests/runtime_step_test.cpp
    tests/runtime_threads_test.cpp
    tests/runtime_untrusted_test.cpp
)

# Data reader and drawing.
set(tool_test_sources
    tests/curves_test.cpp
    tests/idx_test.cpp
    tests/profile_picture_test.cpp
)

# Generators alone.
set(kernel_test_sources
    tests/generators_conv2d_test.cpp
    tests/generators_linear_test.cpp
    tests/generators_pointwise_test.cpp
    tests/generators_reduce_test.cpp
    tests/generators_schedule_test.cpp
    tests/generators_sgd_test.cpp
    tests/generators_transpose_test.cpp
    tests/prefetch_test.cpp
)

# Front end, passes and interpreter: no kernel is compiled.
set(compiler_test_sources
    tests/dsl_test.cpp
    tests/gradient_test.cpp
    tests/graph_test.cpp
    tests/interpreter_test.cpp
    tests/lowered_test.cpp
    tests/memory_test.cpp
    tests/ops_test.cpp
    tests/passes_lowered_test.cpp
    tests/passes_test.cpp
    tests/plan_cost_test.cpp
    tests/plan_test.cpp
    tests/schedule_database_test.cpp
)

# The tuner, which forks: kernels of its own, real ones too.
set(tuner_test_sources
    tests/tuner_test.cpp
)

# Whole networks, compiled in the process.
set(network_test_sources
    tests/networks_test.cpp
    tests/step_tuner_test.cpp
)
set(model_test_sources
    tests/append_programs_test.cpp
    tests/batch_norm_states_test.cpp
    tests/batch_norm_test.cpp
    tests/channels_test.cpp
    tests/check_finite_test.cpp
    tests/concat_test.cpp
    tests/determinism_test.cpp
    tests/folding_test.cpp
    tests/guard_pages_test.cpp
    tests/onnx_nodes_test.cpp
    tests/op_kernels_test.cpp
    tests/pytorch_agreement_test.cpp
    tests/ragged_test.cpp
    tests/random_networks_test.cpp
    tests/schedules_test.cpp
    tests/special_table_test.cpp
    tests/special_values_test.cpp
    tests/winograd_test.cpp
)

# Whole networks on devices.
set(device_test_sources
    tests/device_models_test.cpp
)

# What tests share, and programs that tests run.
set(test_support_sources
    tests/consumer/consumer.cpp
    tests/consumer/device.cpp
    tests/consumer/small.cpp
    tests/consumer_models.cpp
    tests/device_value.cpp
    tests/differential.cpp
    tests/fixture.cpp
    tests/graph_fixture.cpp
    tests/guarded.cpp
    tests/kernel_library_test.cpp
    tests/op_graph.cpp
    tests/pointwise_reference.cpp
    tests/random_network.cpp
    tests/run_kernels.cpp
)
