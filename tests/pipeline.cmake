# Tests of pipeline; see CMakeLists.txt for mr_test().
mr_test(order SOURCES unit/test_order.c LINK mr_pipeline LABELS unit)
mr_test(reranker SOURCES unit/test_reranker.c ranker_support.c LINK mr_pipeline LABELS unit golden)
mr_test(pipeline_images SOURCES unit/test_pipeline_images.c ranker_support.c LINK mr_pipeline
        LABELS unit)
# The store's answers are made to fail underneath the pipeline.
mr_test(pipeline SOURCES unit/test_pipeline.c ranker_support.c LINK mr_pipeline LABELS unit)
target_link_options(test_pipeline PRIVATE -Wl,--wrap=mr_store_fetch)
mr_test(pipeline_users SOURCES unit/test_pipeline_users.c ranker_support.c LINK mr_pipeline
        LABELS unit)
target_link_options(test_pipeline_users PRIVATE -Wl,--wrap=mr_store_fetch)
mr_test(half_migrated SOURCES unit/test_half_migrated.c ranker_support.c LINK mr_pipeline
        LABELS unit threads TIMEOUT 300)
mr_test(half_migrated_on_redis SOURCES unit/test_half_migrated.c ranker_support.c
        LINK mr_pipeline test_redis LABELS redis threads TIMEOUT 300)
target_compile_definitions(test_half_migrated_on_redis PRIVATE STORE_ON_REDIS)
mr_test(rotation SOURCES unit/test_rotation.c ranker_support.c LINK mr_pipeline LABELS unit)
mr_test(migration SOURCES unit/test_migration.c LINK mr_pipeline LABELS unit)
mr_test(migration_on_redis SOURCES unit/test_migration.c LINK mr_pipeline test_redis LABELS redis)
target_compile_definitions(test_migration_on_redis PRIVATE STORE_ON_REDIS)
