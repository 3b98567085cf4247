# Tests of featurestore; see CMakeLists.txt for mr_test().
mr_test(record SOURCES unit/test_record.c LINK mr_featurestore LABELS unit)
mr_test(store SOURCES unit/test_store.c LINK mr_featurestore LABELS unit)
mr_test(store_batch SOURCES unit/test_store_batch.c LINK mr_featurestore LABELS unit)
mr_test(store_open SOURCES unit/test_store_open.c LINK mr_featurestore PkgConfig::LMDB LABELS unit)
mr_test(store_lmdb SOURCES unit/test_store_lmdb.c LINK mr_featurestore LABELS unit)
mr_test(store_threads SOURCES unit/test_store_threads.c LINK mr_featurestore LABELS unit threads)
