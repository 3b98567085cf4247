# Tests of model; see CMakeLists.txt for mr_test().
mr_test(bundle SOURCES unit/test_bundle.c ranker_support.c LINK mr_pipeline LABELS unit)
mr_test(bundle_write SOURCES unit/test_bundle_write.c ranker_support.c LINK mr_pipeline LABELS unit)
mr_test(bundle_user SOURCES unit/test_bundle_user.c ranker_support.c LINK mr_pipeline LABELS unit)
mr_test(scorer SOURCES unit/test_scorer.c ranker_support.c LINK mr_pipeline LABELS unit threads)
mr_test(scorer_reference SOURCES unit/test_scorer_reference.c ranker_support.c LINK mr_pipeline
        LABELS unit golden)
mr_test(batcher SOURCES unit/test_batcher.c ranker_support.c LINK mr_pipeline LABELS unit threads)
