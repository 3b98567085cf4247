# Tests against real redis-servers (skipped where there is none), and of how Redis is spoken to; see
# CMakeLists.txt for mr_test().
foreach(test IN ITEMS store store_batch store_swap)
  mr_test(${test}_on_redis SOURCES unit/test_${test}.c LINK mr_featurestore test_redis LABELS redis)
  target_compile_definitions(test_${test}_on_redis PRIVATE STORE_ON_REDIS)
endforeach()
mr_test(redis_url SOURCES unit/test_redis_url.c LINK mr_featurestore LABELS unit)
mr_test(redis_reply SOURCES unit/test_redis_reply.c LINK mr_featurestore LABELS unit)
mr_test(store_redis SOURCES unit/test_store_redis.c LINK mr_featurestore test_redis LABELS redis)
mr_test(store_redis_away SOURCES unit/test_store_redis_away.c LINK mr_featurestore test_redis
        LABELS redis threads)
mr_test(store_redis_tracking SOURCES unit/test_store_redis_tracking.c
        LINK mr_featurestore test_redis LABELS redis threads)
mr_test(store_redis_sentinel SOURCES unit/test_store_redis_sentinel.c
        LINK mr_featurestore test_redis LABELS redis)
# No Redis needed: the server is a thread of the test.
mr_test(store_redis_hostile SOURCES unit/test_store_redis_hostile.c fake_redis.c
        LINK mr_featurestore test_redis LABELS unit threads)
mr_test(store_redis_tls SOURCES unit/test_store_redis_tls.c LINK mr_featurestore test_redis
        LABELS redis)
mr_test(store_redis_memory ALLOC_FAILURE SOURCES unit/test_store_redis_memory.c fake_redis.c
        LINK mr_featurestore test_redis LABELS unit threads)
mr_test(store_redis_threads SOURCES unit/test_store_redis_threads.c LINK mr_featurestore test_redis
        LABELS redis threads)
