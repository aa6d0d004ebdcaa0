"""Packaging of PEARL-TF: the one place for its metadata, dependencies, extras and package data.

`constraints.txt` beside this file pins an environment in which all of this is proven to work:

  pip install -e .[dev] -c constraints.txt

The Python range is narrow because dm-reverb 0.14 and TensorFlow 2.15.1 have wheels for CPython 3.9,
3.10 and 3.11 only (none for 3.12), while the pinned matplotlib and contourpy need 3.11.
"""

import pathlib
import runpy

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent
# Run as a file: importing the package would need TensorFlow, which is not installed yet.
VERSION = runpy.run_path(str(ROOT / 'pearl_tf' / 'version.py'))['__version__']
README = ROOT / 'README.md'

TENSORFLOW = '2.15.1'

INSTALL_REQUIRES = [
  'absl-py>=2.0',
  'dm-reverb==0.14.*',
  'gin-config>=0.5',
  # The extra brings imageio, without which gymnasium's MuJoCo classes cannot render.
  'gymnasium[mujoco]>=1.3,<1.4',
  'matplotlib>=3.8',
  'mujoco>=4.0,<4.1',
  'numpy>=1.26,<2',
  'protobuf>=4.21.6,<5',
  'rich>=14.2',
  'scipy>=1.15',
  # TensorBoard 2.15 imports pkg_resources, which later releases of setuptools removed.
  'setuptools<81',
  'tensorboard>=2.15,<2.16',
  f'tensorflow=={TENSORFLOW}',
  'tensorflow-probability==0.23.*',
  # Every export holds warm-up requests.
  f'tensorflow-serving-api=={TENSORFLOW}',
  'tf-agents==0.19.*',
]

EXTRAS_REQUIRE = {
  'gpu': [f'tensorflow[and-cuda]=={TENSORFLOW}'],
  # Health checking and reflection above 1.62 need protobuf 5, which TensorFlow 2.15 refuses.
  'serving': [
    'aiohttp>=3.9',
    'grpcio>=1.62,<2',
    'grpcio-health-checking>=1.62,<1.63',
    'grpcio-reflection>=1.62,<1.63',
    'prometheus-client>=0.20',
  ],
  # 3.1 pins MuJoCo 3.3, before the one that everything here is proven on.
  'metaworld': ['metaworld==3.0.*'],
  'media': ['imageio>=2.30', 'imageio-ffmpeg>=0.5', 'pillow>=10.0'],
  'dev': [
    'cryptography>=42.0',
    'hypothesis>=6.100',
    'import-linter>=2.5',
    'packaging>=23.0',
    'pillow>=10.0',
    'pytest>=8.0',
    'pytest-timeout>=2.3',
    'pytest-xdist>=3.5',
    'pyyaml>=6.0',
    'ruff>=0.8',
  ],
}

# pearl-<name> is what `python -m <module>` is in a checkout.
PROGRAMS = {
  'train': 'trainers.train',
  'evaluate': 'trainers.evaluate',
  'plot': 'trainers.plot',
  'record-video': 'trainers.record_video',
  'publish': 'trainers.publish',
  'train-distributed': 'trainers.train_distributed',
  'replay-server': 'trainers.replay_server',
  'learner': 'trainers.learner',
  'actor': 'trainers.actor',
  'evaluator': 'trainers.evaluator',
  'benchmark': 'trainers.benchmark',
  'benchmark-distributed': 'trainers.benchmark_distributed',
  'demo': 'serving.demo',
  'export': 'serving.export',
  'verify-export': 'serving.verify_export',
  'serve': 'serving.server.__main__',
  'adapt-demo': 'serving.adapt_demo',
}

setuptools.setup(
  name='pearl-tf',
  version=VERSION,
  description='PEARL: off-policy meta-reinforcement learning on TensorFlow, TF-Agents and Reverb',
  long_description=README.read_text(encoding='utf-8') if README.exists() else '',
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11,<3.12',
  install_requires=INSTALL_REQUIRES,
  extras_require=EXTRAS_REQUIRE,
  packages=setuptools.find_packages(include=['pearl_tf*', 'trainers*', 'serving*']),
  entry_points={
    'console_scripts': [f'pearl-{name} = {module}:run' for name, module in PROGRAMS.items()]
  },
  # Spelled out so that an editable install puts the root folder on the path, where a package that
  # is added later is found without installing again.
  package_dir={'': '.'},
  package_data={
    'pearl_tf': ['py.typed', 'pretrained/**/*'],
    'pearl_tf.evaluation': ['reference_curves/*'],
    'trainers': ['py.typed', 'configs/**/*.gin', 'deploy/**/*'],
    'serving': ['py.typed', 'deploy/**/*'],
    'serving.client': ['pearl.proto', 'py.typed'],
  },
  classifiers=[
    'License :: OSI Approved :: Apache Software License',
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Python :: 3.11',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
)
