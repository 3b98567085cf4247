# Tests of featurestore; see CMakeLists.txt for mr_test().
mr_test(record SOURCES unit/test_record.c LINK mr_featurestore LABELS unit)
mr_test(store SOURCES unit/test_store.c LINK mr_featurestore LABELS unit)
mr_test(store_batch SOURCES unit/test_store_batch.c LINK mr_featurestore LABELS unit)
mr_test(store_open SOURCES unit/test_store_open.c LINK mr_featurestore PkgConfig::LMDB LABELS unit)
mr_test(store_lmdb SOURCES unit/test_store_lmdb.c LINK mr_featurestore LABELS unit)
mr_test(store_threads SOURCES unit/test_store_threads.c LINK mr_featurestore LABELS unit threads)
mr_test(cache SOURCES unit/test_cache.c LINK mr_featurestore LABELS unit ALLOC_FAILURE)
mr_test(cache_model SOURCES unit/test_cache_model.c LINK mr_featurestore LABELS unit)
mr_test(cache_threads SOURCES unit/test_cache_threads.c LINK mr_featurestore LABELS unit threads)
# Its clock is the test's.
mr_test(store_cached SOURCES unit/test_store_cached.c LINK mr_featurestore LABELS unit
        ALLOC_FAILURE)
target_link_options(test_store_cached PRIVATE -Wl,--wrap=mr_clock_monotonic_us)

# Redis Cluster. Label redis: on real redis-server processes, skipped with the reason without them.
mr_test(redis_slots SOURCES unit/test_redis_slots.c LINK mr_featurestore LABELS unit)
mr_test(redis_cluster SOURCES unit/test_redis_cluster.c LINK mr_featurestore test_redis
        LABELS redis threads TIMEOUT 180)
mr_test(redis_cluster_away SOURCES unit/test_redis_cluster_away.c LINK mr_featurestore test_redis
        LABELS redis TIMEOUT 180)
mr_test(store_swap SOURCES unit/test_store_swap.c LINK mr_featurestore LABELS unit threads)
# The health is the test's.
mr_test(store_metrics SOURCES unit/test_store_metrics.c LINK mr_featurestore LABELS unit)
target_link_options(test_store_metrics PRIVATE -Wl,--wrap=mr_store_health_of)
mr_test(record_file SOURCES unit/test_record_file.c LINK mr_featurestore LABELS unit)
