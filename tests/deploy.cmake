# Tests of deploy; see CMakeLists.txt for mr_test().
