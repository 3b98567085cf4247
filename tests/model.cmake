# Tests of model; see CMakeLists.txt for mr_test().
