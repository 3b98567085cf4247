# Tests of encoders; see CMakeLists.txt for mr_test().
mr_test(space SOURCES unit/test_space.c LINK mr_encoders LABELS unit)
mr_test(history SOURCES unit/test_history.c LINK mr_encoders LABELS unit)
mr_test(template SOURCES unit/test_template.c LINK mr_encoders LABELS unit)
mr_test(template_budget SOURCES unit/test_template_budget.c LINK mr_encoders LABELS unit golden)
mr_test(projector SOURCES unit/test_projector.c LINK mr_encoders LABELS unit golden threads
        ALLOC_GUARD)
mr_test(text_encoder SOURCES unit/test_text_encoder.c LINK mr_encoders LABELS unit golden threads)
mr_test(clip ALLOC_GUARD SOURCES unit/test_clip.c vision_support.c LINK mr_encoders
        LABELS unit golden threads)
mr_test(clip_folders SOURCES unit/test_clip_folders.c vision_support.c LINK mr_encoders LABELS unit)
mr_test(llava ALLOC_GUARD SOURCES unit/test_llava.c vision_support.c LINK mr_encoders
        LABELS unit golden)
mr_test(llava_refused SOURCES unit/test_llava_refused.c vision_support.c LINK mr_encoders
        LABELS unit)
mr_test(image SOURCES unit/test_image.c LINK mr_encoders LABELS unit golden)
mr_test(image_hostile SOURCES unit/test_image_hostile.c LINK mr_encoders LABELS unit)
mr_test(image_damage SOURCES unit/test_image_damage.c LINK mr_encoders LABELS unit)
mr_test(image_encoder SOURCES unit/test_image_encoder.c LINK mr_encoders LABELS unit)
mr_test(user_encoder ALLOC_GUARD SOURCES unit/test_user_encoder.c vision_support.c LINK mr_encoders
        LABELS unit golden threads)
