# Tests of engine; see CMakeLists.txt for mr_test().
mr_test(dtype SOURCES unit/test_dtype.c LINK mr_engine LABELS unit)
mr_test(safetensors SOURCES unit/test_safetensors.c LINK mr_engine LABELS unit)
mr_test(safetensors_shards SOURCES unit/test_safetensors_shards.c LINK mr_engine LABELS unit)
mr_test(model_config SOURCES unit/test_model_config.c LINK mr_engine LABELS unit)
mr_test(model SOURCES unit/test_model.c LINK mr_engine LABELS unit)
mr_test(model_reference SOURCES unit/test_model_reference.c LINK mr_engine LABELS unit golden)
mr_test(untrained SOURCES unit/test_untrained.c LINK mr_engine LABELS unit)
