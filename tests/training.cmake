# Tests of training; see CMakeLists.txt for mr_test().
mr_test(losses SOURCES unit/test_losses.c vision_support.c LINK mr_training LABELS unit golden)
mr_test(optimizer SOURCES unit/test_optimizer.c vision_support.c LINK mr_training
        LABELS unit golden threads)
mr_test(decoder_gradients SOURCES unit/test_decoder_gradients.c LINK mr_training LABELS unit)
