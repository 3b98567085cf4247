# Tests of ranker/service; see CMakeLists.txt for mr_test().

# The messages of the test server, and their descriptors for reflection.
set(echo ${PROJECT_BINARY_DIR}/generated/tests/interop)
file(MAKE_DIRECTORY ${echo})
add_custom_command(
  OUTPUT ${echo}/echo.pb-c.c ${echo}/echo.pb-c.h
  COMMAND ${PROTOC_C} --proto_path=${CMAKE_CURRENT_SOURCE_DIR}/interop --c_out=${echo}
          ${CMAKE_CURRENT_SOURCE_DIR}/interop/echo.proto
  DEPENDS interop/echo.proto VERBATIM)
add_custom_command(
  OUTPUT ${echo}/echo_descriptors.c ${echo}/echo_descriptors.bin
  COMMAND ${PROTOC_C} --proto_path=${CMAKE_CURRENT_SOURCE_DIR}/interop
          --proto_path=${PROJECT_SOURCE_DIR}/proto --include_imports
          --descriptor_set_out=${echo}/echo_descriptors.bin echo.proto
          grpc/health/v1/health.proto grpc/reflection/v1/reflection.proto
          grpc/reflection/v1alpha/reflection.proto
  COMMAND ${CMAKE_COMMAND} -DNAME=echo_descriptors -DIN=${echo}/echo_descriptors.bin
          -DOUT=${echo}/echo_descriptors.c -P ${PROJECT_SOURCE_DIR}/proto/embed.cmake
  DEPENDS interop/echo.proto ${PROJECT_SOURCE_DIR}/proto/embed.cmake mr_proto VERBATIM)
add_library(test_echo STATIC ${echo}/echo.pb-c.c ${echo}/echo_descriptors.c)
target_include_directories(test_echo PUBLIC ${PROJECT_BINARY_DIR}/generated PRIVATE ${echo})
target_link_libraries(test_echo PUBLIC PkgConfig::PROTOBUF_C)

add_executable(rpc_test_server interop/rpc_test_server.c)
target_link_libraries(rpc_test_server PRIVATE mr_build mr_rpc test_echo)

mr_test(rank_wire SOURCES unit/test_rank_wire.c LINK mr_service LABELS unit)
mr_test(rpc_wire SOURCES unit/test_rpc_wire.c LINK mr_rpc LABELS unit)
mr_test(rpc_calls SOURCES unit/test_rpc_calls.c rpc_client.c LINK mr_rpc PkgConfig::NGHTTP2 LABELS unit threads)
mr_test(rpc_server SOURCES unit/test_rpc_server.c rpc_client.c LINK mr_rpc PkgConfig::NGHTTP2 LABELS unit threads)
mr_test(rpc_descriptors SOURCES unit/test_rpc_descriptors.c LINK mr_rpc LABELS unit)

# Foreign clients, each a program of its own that starts the test server; they say why they skip.
# MIXRANK_PYTHON: see interop/python.sh.
function(mr_rpc_interop name script)
  add_test(NAME interop_rpc_${name} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/interop/python.sh
           "grpc google.protobuf" ${CMAKE_CURRENT_SOURCE_DIR}/interop/${script} ${ARGN})
  mr_rpc_interop_properties(${name})
endfunction()
function(mr_rpc_interop_properties name)
  set_tests_properties(interop_rpc_${name} PROPERTIES LABELS interop TIMEOUT 600
    SKIP_RETURN_CODE 77 ENVIRONMENT "RPC_TEST_SERVER=$<TARGET_FILE:rpc_test_server>;RPC_TEST_DESCRIPTORS=${echo}/echo_descriptors.bin;SANITIZE=${MR_SANITIZE};PYTHONDONTWRITEBYTECODE=1")
endfunction()
foreach(mode IN ITEMS plain unix tls mtls)
  mr_rpc_interop(python_${mode} rpc_python.py ${mode})
endforeach()
mr_rpc_interop(operations rpc_operations.py)
mr_rpc_interop(abuse rpc_abuse.py)
mr_rpc_interop(haproxy rpc_haproxy.py)
foreach(mode IN ITEMS plain tls mtls)
  add_test(NAME interop_rpc_node_${mode} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/interop/rpc_node.sh
           ${CMAKE_CURRENT_BINARY_DIR} ${mode})
  mr_rpc_interop_properties(node_${mode})
  set_property(TEST interop_rpc_node_${mode} PROPERTY RESOURCE_LOCK npm) # installs once
endforeach()
