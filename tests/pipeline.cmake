# Tests of pipeline; see CMakeLists.txt for mr_test().
