# Tests of the tree itself and of what is installed. The C++ compiler only reads the headers: the
# project does not need one.
add_test(NAME hygiene COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/hygiene.sh ${PROJECT_SOURCE_DIR})
add_test(NAME hygiene_selftest COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/hygiene_selftest.sh)
add_test(NAME format COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/format.sh check ${PROJECT_SOURCE_DIR})
add_test(NAME compare COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/compare.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(hygiene hygiene_selftest format compare
                     PROPERTIES LABELS unit SKIP_RETURN_CODE 77)

# A sanitized library runs only in a program that brings the runtime.
if(NOT MR_SANITIZE AND NOT MR_FUZZ)
  find_program(MR_CXX NAMES c++ g++ clang++ clang++-14)
  add_test(NAME install_and_consume
           COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/install.sh ${PROJECT_SOURCE_DIR}
                   ${PROJECT_BINARY_DIR} ${CMAKE_C_COMPILER} "$<$<BOOL:${MR_CXX}>:${MR_CXX}>"
                   $<CONFIG>)
  set_tests_properties(install_and_consume PROPERTIES LABELS integration TIMEOUT 120)
endif()
