# Tests of the Kafka refresher; see CMakeLists.txt for mr_test(). Label kafka: on librdkafka's mock
# cluster, or on a real broker (kafka_broker.h), which is skipped with its reason where Java or Maven
# are missing. Not `threads`: librdkafka makes its threads by C11's thrd_create, which ThreadSanitizer
# does not know and dies of.
mr_test(refresh_message SOURCES unit/test_refresh_message.c LINK mr_refresh mr_proto LABELS unit)

add_library(test_kafka STATIC kafka_support.c)
target_link_libraries(test_kafka PRIVATE mr_build mr_proto PUBLIC test_support mr_refresh
                      PkgConfig::RDKAFKA)

# On the mock cluster, with puts and commits wrapped: unit/refresh_fixture.h.
function(mr_refresh_test name)
  mr_test(${name} SOURCES unit/test_${name}.c unit/refresh_fixture.c LINK test_kafka
          LABELS kafka TIMEOUT 400)
  target_link_options(test_${name} PRIVATE -Wl,--wrap=mr_store_put -Wl,--wrap=rd_kafka_commit
                      -Wl,--wrap=rd_kafka_commit_queue)
endfunction()

mr_refresh_test(refresh_mock)
mr_refresh_test(refresh_failures)

# A real broker. The class path is asked of Maven once per build folder, and brokers are large:
# two of them at a time would slow everything.
add_library(test_broker STATIC kafka_broker.c)
target_compile_definitions(test_broker PRIVATE
  KAFKA_BROKER_SCRIPT="${CMAKE_CURRENT_SOURCE_DIR}/kafka/broker")
target_link_libraries(test_broker PRIVATE mr_build)
function(mr_broker_test name)
  set_tests_properties(${name} PROPERTIES RESOURCE_LOCK kafka_broker
                       ENVIRONMENT "KAFKA_CACHE=${CMAKE_CURRENT_BINARY_DIR}/kafka")
endfunction()

mr_test(refresh_broker SOURCES unit/test_refresh_broker.c LINK test_kafka test_broker
        LABELS kafka TIMEOUT 600)
mr_broker_test(refresh_broker)

# Everything dies, and the store is right in the end: chaos/chaos.c. The short form is a test.
add_executable(chaos_run chaos/chaos.c chaos/load.c chaos/member.c)
target_link_libraries(chaos_run PRIVATE mr_build test_kafka test_broker test_redis)
add_test(NAME chaos_short COMMAND chaos_run --events 3000 --kills 2 --redis-restarts 1
         --broker-restarts 0)
add_test(NAME chaos_short_lmdb COMMAND chaos_run --events 3000 --kills 2 --broker-restarts 0
         --store lmdb)
foreach(name IN ITEMS chaos_short chaos_short_lmdb)
  set_tests_properties(${name} PROPERTIES LABELS "kafka" TIMEOUT 400 SKIP_RETURN_CODE 77)
  mr_broker_test(${name})
endforeach()
add_custom_target(chaos
  COMMAND ${CMAKE_COMMAND} -E env KAFKA_CACHE=${CMAKE_CURRENT_BINARY_DIR}/kafka
          $<TARGET_FILE:chaos_run>
  COMMENT "100,000 events while everything dies" USES_TERMINAL VERBATIM)

# Long because they wait: first in line, so that others run beside them.
set_tests_properties(refresh_failures refresh_mock refresh_broker chaos_short chaos_short_lmdb
                     PROPERTIES COST 100)
