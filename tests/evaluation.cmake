# Tests of evaluation; see CMakeLists.txt for mr_test().
mr_test(metrics SOURCES unit/test_metrics.c LINK mr_evaluation LABELS unit)
mr_test(intervals SOURCES unit/test_intervals.c LINK mr_evaluation LABELS unit)
mr_test(text_index SOURCES unit/test_text_index.c LINK mr_evaluation LABELS unit)
mr_test(baselines SOURCES unit/test_baselines.c LINK mr_evaluation LABELS unit)
mr_test(linear_ranker ALLOC_FAILURE SOURCES unit/test_linear_ranker.c LINK mr_evaluation LABELS unit)
mr_test(tasks SOURCES unit/test_tasks.c LINK mr_evaluation LABELS unit)
mr_test(systems SOURCES unit/test_systems.c LINK mr_evaluation LABELS unit)
