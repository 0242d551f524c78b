setup:
body:
load.dram src=0 dst=128 n0=1 n1=1 n2=1 n3=48 s0=0 s1=0 s2=0 s3=1 d0=0 d1=0 d2=0 d3=1 ; 0
loadw.weight src=128 dst=8192 bytes=54 ; 0
configure.window height=4 width=4 row_stride=12 pixel_stride=3 kernel_h=3 kernel_w=3 stride_h=1 stride_w=1 dilation_h=1 dilation_w=1 pad_top=1 pad_left=1 zero_point=-1 weight_zero=0 ; 0
sync.matrix load=1 weight=1 matrix=0 vector=0 store=0 ; 0
matmul.write x=128 w=8192 acc=16384 rows=4 columns=4 channels=3 outputs=2 ; 0
loadw.param src=182 dst=8192 bytes=16 ; 0
configure.requant shift=31 zero_point=-128 low=-128 high=127 residual_multiplier=0 residual_zero=0 fraction=0 table=-1 residual_row=0 residual_pixel=0 rounding=0 ; 0
sync.vector load=0 weight=2 matrix=3 vector=0 store=0 ; 0
requantize.plain acc=16384 param=8192 out=0 rows=4 columns=4 outputs=2 row=16 pixel=4 residual=0 ; 0
loadw.weight src=198 dst=0 bytes=54 ; 0
sync.matrix load=0 weight=3 matrix=0 vector=0 store=0 ; 0
matmul.write x=128 w=0 acc=0 rows=4 columns=4 channels=3 outputs=2 ; 0
loadw.param src=252 dst=0 bytes=16 ; 0
sync.vector load=0 weight=4 matrix=5 vector=0 store=0 ; 0
requantize.plain acc=0 param=0 out=2 rows=4 columns=4 outputs=2 row=16 pixel=4 residual=0 ; 0
sync.weight load=0 weight=0 matrix=3 vector=0 store=0 ; 1
loadw.weight src=268 dst=8192 bytes=144 ; 1
configure.window height=4 width=4 row_stride=16 pixel_stride=4 kernel_h=3 kernel_w=3 stride_h=1 stride_w=1 dilation_h=1 dilation_w=1 pad_top=1 pad_left=1 zero_point=-128 weight_zero=0 ; 1
sync.matrix load=0 weight=6 matrix=0 vector=5 store=0 ; 1
matmul.write x=0 w=8192 acc=16384 rows=4 columns=4 channels=4 outputs=4 ; 1
sync.weight load=0 weight=0 matrix=0 vector=3 store=0 ; 1
loadw.param src=412 dst=8192 bytes=32 ; 1
configure.requant shift=31 zero_point=-1 low=-128 high=127 residual_multiplier=512 residual_zero=-128 fraction=10 table=-1 residual_row=16 residual_pixel=4 rounding=0 ; 1
sync.vector load=0 weight=8 matrix=8 vector=0 store=0 ; 1
requantize.residual acc=16384 param=8192 out=64 rows=4 columns=4 outputs=4 row=16 pixel=4 residual=0 ; 1
sync.weight load=0 weight=0 matrix=0 vector=5 store=0 ; 2
loadw.param src=444 dst=0 bytes=4 ; 2
configure.requant shift=31 zero_point=-1 low=-128 high=127 residual_multiplier=0 residual_zero=0 fraction=0 table=-1 residual_row=0 residual_pixel=0 rounding=0 ; 2
configure.pool height=16 width=1 row_stride=4 pixel_stride=4 kernel_h=16 kernel_w=1 stride_h=1 stride_w=1 dilation_h=1 dilation_w=1 pad_top=0 pad_left=0 zero_point=-1 weight_zero=0 ; 2
sync.vector load=0 weight=10 matrix=0 vector=0 store=0 ; 2
elementwise.avg_pool a=64 b=0 out=0 n0=1 n1=1 n2=4 a0=0 a1=0 a2=0 b0=0 b1=0 b2=0 o0=4 o1=4 o2=1 ; 2
loadw.weight src=448 dst=0 bytes=20 ; 3
configure.window height=1 width=1 row_stride=4 pixel_stride=4 kernel_h=1 kernel_w=1 stride_h=1 stride_w=1 dilation_h=1 dilation_w=1 pad_top=0 pad_left=0 zero_point=-1 weight_zero=0 ; 3
sync.matrix load=0 weight=11 matrix=0 vector=12 store=0 ; 3
matmul.write x=0 w=0 acc=0 rows=1 columns=1 channels=4 outputs=5 ; 3
sync.weight load=0 weight=0 matrix=0 vector=8 store=0 ; 3
loadw.param src=468 dst=8192 bytes=40 ; 3
sync.vector load=0 weight=13 matrix=11 vector=0 store=0 ; 3
requantize.plain acc=0 param=8192 out=128 rows=1 columns=1 outputs=5 row=5 pixel=5 residual=0 ; 3
sync.store load=1 weight=0 matrix=0 vector=14 store=0 ; 3
store.dram src=128 dst=64 n0=1 n1=1 n2=1 n3=5 s0=0 s1=0 s2=0 s3=1 d0=0 d1=0 d2=0 d3=1 ; 3
