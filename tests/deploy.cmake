# Tests of deploy; see CMakeLists.txt for mr_test().
mr_test(demo_parts SOURCES unit/test_demo_parts.c LINK demo m LABELS unit)
mr_test(demo_catalogue SOURCES unit/test_demo_catalogue.c LINK demo LABELS unit)
mr_test(demo_people SOURCES unit/test_demo_people.c LINK demo LABELS unit)
mr_test(demo_training SOURCES unit/test_demo_training.c LINK demo LABELS unit)
add_test(NAME demo_fetch COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/deploy/test_fetch.sh
         ${PROJECT_SOURCE_DIR} $<TARGET_FILE:demo-catalogue>)
set_tests_properties(demo_fetch PROPERTIES LABELS unit TIMEOUT 120 SKIP_RETURN_CODE 77)
