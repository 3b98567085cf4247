# Tests of engine; see CMakeLists.txt for mr_test().
mr_test(dtype SOURCES unit/test_dtype.c LINK mr_engine LABELS unit)
mr_test(safetensors SOURCES unit/test_safetensors.c LINK mr_engine LABELS unit)
mr_test(safetensors_shards SOURCES unit/test_safetensors_shards.c LINK mr_engine LABELS unit)
mr_test(model_config SOURCES unit/test_model_config.c LINK mr_engine LABELS unit)
mr_test(model SOURCES unit/test_model.c LINK mr_engine LABELS unit)
mr_test(model_reference SOURCES unit/test_model_reference.c LINK mr_engine LABELS unit golden)
mr_test(untrained SOURCES unit/test_untrained.c LINK mr_engine LABELS unit)
mr_test(kernels SOURCES unit/test_kernels.c LINK mr_engine LABELS unit)
mr_test(kernel_products SOURCES unit/test_kernel_products.c LINK mr_engine LABELS unit)
mr_test(gemm SOURCES unit/test_gemm.c LINK mr_engine LABELS unit threads)
mr_test(forward_reference SOURCES unit/test_forward_reference.c engine_support.c
        LINK mr_engine LABELS unit golden)
mr_test(session SOURCES unit/test_session.c engine_support.c LINK mr_engine LABELS unit)
mr_test(same_bits TIMEOUT 600 SOURCES unit/test_same_bits.c engine_support.c
        LINK mr_engine LABELS unit threads)
mr_test(no_alloc ALLOC_GUARD SOURCES unit/test_no_alloc.c engine_support.c
        LINK mr_engine LABELS unit)
mr_test(sampler ALLOC_GUARD SOURCES unit/test_sampler.c LINK mr_engine LABELS unit)
mr_test(tokenizer SOURCES unit/test_tokenizer.c LINK mr_engine LABELS unit)
mr_test(tokenizer_reference SOURCES unit/test_tokenizer_reference.c LINK mr_engine LABELS unit golden)
mr_test(tokenizer_refused SOURCES unit/test_tokenizer_refused.c LINK mr_engine LABELS unit)
mr_test(tokenizer_large TIMEOUT 600 SOURCES unit/test_tokenizer_large.c LINK mr_engine LABELS unit)
mr_test(tokenizer_threads SOURCES unit/test_tokenizer_threads.c LINK mr_engine LABELS unit threads)
mr_test(tokenizer_memory SOURCES unit/test_tokenizer_memory.c LINK mr_engine LABELS unit)
target_link_options(test_tokenizer_memory PRIVATE -Wl,--wrap=malloc -Wl,--wrap=calloc
                    -Wl,--wrap=realloc)
