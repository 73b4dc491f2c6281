BEGIN TRANSACTION;
CREATE TABLE distances (
    trial TEXT NOT NULL REFERENCES trials,
    epoch INTEGER NOT NULL,
    network INTEGER NOT NULL,
    max_pool TEXT NOT NULL,
    l1 REAL,
    train_loss REAL,
    test_loss REAL,
    test_accuracy REAL NOT NULL,
    diverged_step INTEGER,
    diverged_layer TEXT,
    PRIMARY KEY (trial, epoch, network)
) WITHOUT ROWID;
CREATE TABLE epochs (
    trial TEXT NOT NULL REFERENCES trials,
    epoch INTEGER NOT NULL,
    learning_rate REAL NOT NULL,
    train_loss REAL,
    train_accuracy REAL NOT NULL,
    test_loss REAL,
    test_accuracy REAL NOT NULL,
    gradient_norm REAL,
    seconds REAL NOT NULL,
    PRIMARY KEY (trial, epoch)
) WITHOUT ROWID;
INSERT INTO "epochs" VALUES('3304dd3cb525',1,2.0302988154403053822e-03,2.30561232566833496093e+00,0.109375,2.302944183349609375e+00,0.125,3.33628367757814403571e-01,1.58245699999497446697e-02);
INSERT INTO "epochs" VALUES('3304dd3cb525',2,1.0151494077201526911e-03,2.30512392520904541015e+00,0.109375,2.30275845527648925781e+00,0.125,3.34594252571214556546e-01,1.36238039999625470954e-02);
INSERT INTO "epochs" VALUES('572ddb49baa5',1,2.0302988154403053822e-03,2.30561232566833496093e+00,0.109375,2.302944183349609375e+00,0.125,3.33628367757814403571e-01,1.75238040000067485379e-02);
INSERT INTO "epochs" VALUES('572ddb49baa5',2,1.0151494077201526911e-03,2.30512392520904541015e+00,0.109375,2.30275845527648925781e+00,0.125,3.34594252571214556546e-01,1.3714648000018314633e-02);
INSERT INTO "epochs" VALUES('711b5f041a0d',1,2.0302988154403053822e-03,2.30561232566833496093e+00,0.109375,2.302944183349609375e+00,0.125,NULL,1.97859810000409197527e-02);
INSERT INTO "epochs" VALUES('82338f663f62',1,6.36349368825034171492e-03,2.30360269546508789062e+00,0.09375,2.30392360687255859375e+00,0.09375,NULL,7.67718999998123763361e-03);
CREATE TABLE searches (
    search TEXT PRIMARY KEY,
    learning_rate REAL NOT NULL,
    test_accuracy REAL NOT NULL,
    candidates INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "searches" VALUES('b4323f7d0bf9',2.0302988154403053822e-03,0.125,2);
CREATE TABLE sessions (
    trial TEXT NOT NULL REFERENCES trials,
    first_epoch INTEGER NOT NULL,
    started TEXT NOT NULL,
    kinkcheck TEXT NOT NULL,
    commit_id TEXT,
    clean INTEGER,
    torch TEXT NOT NULL,
    python TEXT NOT NULL,
    platform TEXT NOT NULL,
    device TEXT NOT NULL,
    device_name TEXT NOT NULL,
    kernels TEXT NOT NULL,
    threads INTEGER NOT NULL,
    flags TEXT NOT NULL,
    init_seed INTEGER NOT NULL,
    order_seed INTEGER NOT NULL,
    augment_seed INTEGER NOT NULL
);
INSERT INTO "sessions" VALUES('711b5f041a0d',1,'2026-11-29T09:26:19+00:00','0.1.0','3527aff3ea5dbf8f831a3c7fc08b4085c05355f2',1,'2.13.0+cpu','3.11.7','Linux x86_64','cpu','Intel(R) Xeon(R) Processor','reference, 2 threads: compiled kernels are not installed',1,'deterministic_algorithms=True cudnn_benchmark=False cublas_workspace=None',0,0,0);
INSERT INTO "sessions" VALUES('82338f663f62',1,'2026-11-29T09:26:19+00:00','0.1.0','3527aff3ea5dbf8f831a3c7fc08b4085c05355f2',1,'2.13.0+cpu','3.11.7','Linux x86_64','cpu','Intel(R) Xeon(R) Processor','reference, 2 threads: compiled kernels are not installed',1,'deterministic_algorithms=True cudnn_benchmark=False cublas_workspace=None',1,1,1);
INSERT INTO "sessions" VALUES('572ddb49baa5',1,'2026-11-29T09:26:19+00:00','0.1.0','3527aff3ea5dbf8f831a3c7fc08b4085c05355f2',1,'2.13.0+cpu','3.11.7','Linux x86_64','cpu','Intel(R) Xeon(R) Processor','reference, 2 threads: compiled kernels are not installed',1,'deterministic_algorithms=True cudnn_benchmark=False cublas_workspace=None',0,0,0);
INSERT INTO "sessions" VALUES('3304dd3cb525',1,'2026-11-29T09:26:19+00:00','0.1.0','3527aff3ea5dbf8f831a3c7fc08b4085c05355f2',1,'2.13.0+cpu','3.11.7','Linux x86_64','cpu','Intel(R) Xeon(R) Processor','reference, 2 threads: compiled kernels are not installed',1,'deterministic_algorithms=True cudnn_benchmark=False cublas_workspace=None',0,0,0);
CREATE TABLE study (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "study" VALUES('begun','2026-11-29T09:26:10+00:00');
INSERT INTO "study" VALUES('data mnist-sample test','6b0b5c4f6405ba0be27661011367d31d403e7746b910c68e7062846f3f26f1f9');
INSERT INTO "study" VALUES('data mnist-sample train','33499e995bff9cffdbb7734e1de917751573b02acf9ba8f041dc796fb98a8d5a');
INSERT INTO "study" VALUES('device','cpu');
INSERT INTO "study" VALUES('spec','{"description":"","source":"","experiment":"training","data":"mnist-sample","train_split":"train","test_split":null,"train_images":64,"test_images":32,"augment":null,"network":["mlp"],"batch_norm":[false],"init":"default","precision":["float32"],"selections":{"relu":["native","branch:1"]},"forward":["exact"],"exclude":[],"seeds":[0],"init_seed":null,"order_seed":null,"augment_seed":null,"optimizer":["sgd"],"learning_rate":"search","momentum":0.9,"weight_decay":0.0005,"clip_norm":null,"schedule":"cosine","step_size":30,"step_factor":0.1,"epochs":2,"batch_size":32,"devices":1,"search":{"trials":2,"epochs":1,"low":0.001,"high":0.1,"pruning":true,"per_selection":false,"seed":0},"probe":true}');
INSERT INTO "study" VALUES('threads','1');
CREATE TABLE ties (
    trial TEXT NOT NULL REFERENCES trials,
    epoch INTEGER NOT NULL,
    layer TEXT NOT NULL,
    windows INTEGER NOT NULL,
    tied INTEGER NOT NULL,
    PRIMARY KEY (trial, epoch, layer)
) WITHOUT ROWID;
CREATE TABLE trials (
    trial TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    search TEXT,
    number INTEGER,
    data TEXT NOT NULL,
    network TEXT NOT NULL,
    batch_norm INTEGER NOT NULL,
    precision TEXT NOT NULL,
    optimizer TEXT NOT NULL,
    forward TEXT NOT NULL,
    max_pool TEXT,
    relu TEXT,
    seed INTEGER NOT NULL,
    learning_rate REAL,
    epochs INTEGER NOT NULL,
    settings TEXT NOT NULL,
    diverged_step INTEGER,
    diverged_layer TEXT,
    reason TEXT,
    checkpoint TEXT
) WITHOUT ROWID;
INSERT INTO "trials" VALUES('3304dd3cb525',1,'finished',NULL,NULL,'mnist-sample','mlp',0,'float32','sgd','exact',NULL,'branch:1',0,2.0302988154403053822e-03,2,'{"augment": false, "augment_seed": 0, "batch_norm": false, "batch_size": 32, "candidate": false, "clip_norm": null, "data": "mnist-sample", "epochs": 2, "experiment": "training", "forward": "exact", "init": "default", "init_seed": 0, "learning_rate": null, "max_pool": null, "momentum": 0.9, "network": "mlp", "networks": [], "optimizer": "sgd", "order_seed": 0, "precision": "float32", "probe": true, "relu": "branch:1", "schedule": "cosine", "search": {"epochs": 1, "high": 0.1, "low": 0.001, "per_selection": false, "pruning": true, "seed": 0, "trials": 2}, "seed": 0, "step_factor": 0.1, "step_size": 30, "test_images": 32, "test_split": "test", "train_images": 64, "train_split": "train", "weight_decay": 0.0005}',NULL,NULL,NULL,NULL);
INSERT INTO "trials" VALUES('572ddb49baa5',0,'finished',NULL,NULL,'mnist-sample','mlp',0,'float32','sgd','exact',NULL,'native',0,2.0302988154403053822e-03,2,'{"augment": false, "augment_seed": 0, "batch_norm": false, "batch_size": 32, "candidate": false, "clip_norm": null, "data": "mnist-sample", "epochs": 2, "experiment": "training", "forward": "exact", "init": "default", "init_seed": 0, "learning_rate": null, "max_pool": null, "momentum": 0.9, "network": "mlp", "networks": [], "optimizer": "sgd", "order_seed": 0, "precision": "float32", "probe": true, "relu": "native", "schedule": "cosine", "search": {"epochs": 1, "high": 0.1, "low": 0.001, "per_selection": false, "pruning": true, "seed": 0, "trials": 2}, "seed": 0, "step_factor": 0.1, "step_size": 30, "test_images": 32, "test_split": "test", "train_images": 64, "train_split": "train", "weight_decay": 0.0005}',NULL,NULL,NULL,NULL);
INSERT INTO "trials" VALUES('711b5f041a0d',-1,'finished','b4323f7d0bf9',0,'mnist-sample','mlp',0,'float32','sgd','exact',NULL,NULL,0,2.0302988154403053822e-03,1,'{"augment": false, "augment_seed": 0, "batch_norm": false, "batch_size": 32, "candidate": true, "clip_norm": null, "data": "mnist-sample", "epochs": 1, "experiment": "training", "forward": "exact", "init": "default", "init_seed": 0, "learning_rate": 0.0020302988154403054, "max_pool": null, "momentum": 0.9, "network": "mlp", "networks": [], "optimizer": "sgd", "order_seed": 0, "precision": "float32", "probe": false, "relu": null, "schedule": "constant", "search": {"epochs": 1, "high": 0.1, "low": 0.001, "per_selection": false, "pruning": true, "seed": 0, "trials": 2}, "seed": 0, "step_factor": 0.1, "step_size": 30, "test_images": 32, "test_split": "test", "train_images": 64, "train_split": "train", "weight_decay": 0.0005}',NULL,NULL,NULL,NULL);
INSERT INTO "trials" VALUES('82338f663f62',-1,'finished','b4323f7d0bf9',1,'mnist-sample','mlp',0,'float32','sgd','exact',NULL,NULL,1,6.36349368825034171492e-03,1,'{"augment": false, "augment_seed": 1, "batch_norm": false, "batch_size": 32, "candidate": true, "clip_norm": null, "data": "mnist-sample", "epochs": 1, "experiment": "training", "forward": "exact", "init": "default", "init_seed": 1, "learning_rate": 0.006363493688250342, "max_pool": null, "momentum": 0.9, "network": "mlp", "networks": [], "optimizer": "sgd", "order_seed": 1, "precision": "float32", "probe": false, "relu": null, "schedule": "constant", "search": {"epochs": 1, "high": 0.1, "low": 0.001, "per_selection": false, "pruning": true, "seed": 0, "trials": 2}, "seed": 1, "step_factor": 0.1, "step_size": 30, "test_images": 32, "test_split": "test", "train_images": 64, "train_split": "train", "weight_decay": 0.0005}',NULL,NULL,NULL,NULL);
COMMIT;
PRAGMA application_id = 1263422291;
PRAGMA user_version = 2;
