"""Makes the models of this folder, some rows for each, and what their own libraries predict for these.

With xgboost-cpu 3.x, lightgbm 4.x, scikit-learn 1.x, skl2onnx and onnxruntime: python make.py DIRECTORY
"""
import json, numpy as np, sys
import xgboost as xgb, lightgbm as lgb
from sklearn.datasets import load_breast_cancer, load_digits, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier, GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, LinearRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from skl2onnx import to_onnx
import onnxruntime as ort
out=sys.argv[1]
import os; os.makedirs(out,exist_ok=True)
def save(name, X, labels, proba=None, names=None):
    head = names or [f"f{i}" for i in range(X.shape[1])]
    with open(f"{out}/{name}.csv","w") as f:
        f.write(",".join(h.replace(' ','_') for h in head)+"\n")
        for r in X:
            f.write(",".join("" if np.isnan(v) else repr(float(v)) for v in r)+"\n")
    json.dump({"predictions":[x if isinstance(x,str) else float(x) for x in labels],"probabilities":None if proba is None else [[float(v) for v in r] for r in proba]}, open(f"{out}/{name}.expected.json","w"))
rng=np.random.default_rng(7)
X,y=load_breast_cancer(return_X_y=True); X=X.astype(np.float32)
Xm=X.copy(); Xm[rng.random(X.shape)<0.1]=np.nan
m=xgb.XGBClassifier(n_estimators=20,max_depth=3,random_state=1).fit(Xm[:400],y[:400]); m.save_model(f"{out}/xgb-binary.json")
T=Xm[400:425]; save("xgb-binary",T,m.predict(T),m.predict_proba(T))
D,t=load_digits(return_X_y=True); D=D.astype(np.float32)
m=xgb.XGBClassifier(n_estimators=6,max_depth=3,random_state=1).fit(D[:1200],t[:1200]); m.save_model(f"{out}/xgb-digits.json")
T=D[1200:1220]; save("xgb-digits",T,m.predict(T),m.predict_proba(T))
R,r=load_diabetes(return_X_y=True)
m=lgb.LGBMRegressor(n_estimators=20,num_leaves=8,random_state=1,verbose=-1).fit(R[:300],r[:300]); m.booster_.save_model(f"{out}/lgb-regression.txt")
T=R[300:320]; save("lgb-regression",T,m.predict(T),names=m.booster_.feature_name())
Xn=Xm.astype(np.float64)
m=lgb.LGBMClassifier(n_estimators=15,num_leaves=8,random_state=1,verbose=-1).fit(Xn[:400],y[:400]); m.booster_.save_model(f"{out}/lgb-binary.txt")
T=Xn[400:420]; save("lgb-binary",T,m.predict(T),m.predict_proba(T),names=m.booster_.feature_name())
I,c=load_iris(return_X_y=True); I=I.astype(np.float32); names=np.array(["setosa","versicolor","virginica"]); cs=names[c]
perm=rng.permutation(150); I,cs=I[perm],cs[perm]
m=lgb.LGBMClassifier(n_estimators=5,num_leaves=4,min_child_samples=5,verbose=-1).fit(I[:100].astype(float),c[perm][:100]); m.booster_.save_model(f"{out}/lgb-multi.txt")
T=I[100:120].astype(float); save("lgb-multi",T,m.predict(T),m.predict_proba(T),names=m.booster_.feature_name())
def onnx(name, model, X, T):
    o=to_onnx(model, X[:1].astype(np.float32), options={id(model):{"zipmap":False}} if hasattr(model,"classes_") else None, target_opset=15)
    open(f"{out}/{name}.onnx","wb").write(o.SerializeToString())
    s=ort.InferenceSession(o.SerializeToString()); res=s.run(None,{s.get_inputs()[0].name:T.astype(np.float32)})
    if hasattr(model,"classes_"): save(name,T,[str(v) if isinstance(v,str) else v for v in res[0].tolist()],res[1])
    else: save(name,T,res[0].reshape(-1))
onnx("forest", RandomForestClassifier(n_estimators=10,max_depth=4,random_state=1).fit(I[:100],cs[:100]), I, I[100:120])
onnx("forest-binary", RandomForestClassifier(n_estimators=10,max_depth=4,random_state=1).fit(X[:400],y[:400]), X, X[400:420])
onnx("boosting", GradientBoostingClassifier(n_estimators=10,max_depth=2,random_state=1).fit(X[:400],y[:400]), X, X[400:420])
onnx("tree", DecisionTreeClassifier(max_depth=5,random_state=1).fit(D[:1000],t[:1000]), D, D[1200:1215])
onnx("forest-regression", RandomForestRegressor(n_estimators=8,max_depth=4,random_state=1).fit(R[:300],r[:300]), R, R[300:320])
onnx("scaled-tree", make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=4,random_state=1)).fit(X[:400],y[:400]), X, X[400:420])
onnx("logistic", make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:400],y[:400]), X, X[400:420])
onnx("logistic-multi", LogisticRegression(max_iter=2000).fit(D[:1200]/16,t[:1200]), D, D[1200:1215]/16)
onnx("linear", LinearRegression().fit(R[:300],r[:300]), R, R[300:320])
onnx("mlp", make_pipeline(StandardScaler(), MLPClassifier((16,8),max_iter=300,random_state=1)).fit(X[:400],y[:400]), X, X[400:420])
onnx("mlp-digits", MLPClassifier((32,),max_iter=200,random_state=1).fit(D[:1200]/16,t[:1200]), D, D[1200:1215]/16)
