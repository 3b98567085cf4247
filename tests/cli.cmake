# Tests of cli; see CMakeLists.txt for mr_test().
