# The layers of design and documentation, enforced twice: in the include lines (layers.sh) and in
# what the libraries need from each other (below).
add_test(NAME layers COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/layers.sh ${PROJECT_SOURCE_DIR})
add_test(NAME layers_selftest COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/layers_selftest.sh)
set_tests_properties(layers layers_selftest PROPERTIES LABELS unit)

# Link direction, as part of the build: a shared library made of the whole of one layer, and linked
# with what the layer declares and nothing else, has no undefined symbols. So a layer that calls one
# above it, or a package that it does not name, does not link. Sanitized objects need a runtime that
# only programs bring, so those builds leave it to the others.
if(NOT MR_SANITIZE AND NOT MR_FUZZ)
  set(whole_archive -Wl,-z,defs -Wl,--whole-archive)
  get_property(layers GLOBAL PROPERTY MR_LAYERS)
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/empty.c "typedef int not_empty;\n")
  foreach(layer IN LISTS layers)
    add_library(link_${layer} SHARED ${CMAKE_CURRENT_BINARY_DIR}/empty.c)
    target_link_options(link_${layer} PRIVATE ${whole_archive} $<TARGET_FILE:${layer}>
                        -Wl,--no-whole-archive)
    target_link_libraries(link_${layer} PRIVATE ${layer})
    set_target_properties(link_${layer} PROPERTIES
                          LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/link)
  endforeach()

  # The same flags must refuse a layer that calls what it does not have.
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/backwards.c
       "int mr_a_layer_above(void);\nint mr_a_layer_below(void);\n"
       "int mr_a_layer_below(void) { return mr_a_layer_above(); }\n")
  add_library(link_planted STATIC ${CMAKE_CURRENT_BINARY_DIR}/backwards.c)
  add_test(NAME link_direction_selftest
           COMMAND ${CMAKE_C_COMPILER} -shared -o ${CMAKE_CURRENT_BINARY_DIR}/link_planted.so
                   ${whole_archive} $<TARGET_FILE:link_planted> -Wl,--no-whole-archive)
  set_tests_properties(link_direction_selftest PROPERTIES LABELS unit
                       PASS_REGULAR_EXPRESSION "undefined reference to .?mr_a_layer_above")
endif()
