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
