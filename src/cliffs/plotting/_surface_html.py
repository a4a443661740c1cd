"""A rotatable error surface as one small HTML file that needs nothing else: no library, no network."""

import json
from collections.abc import Mapping

import numpy as np

from cliffs.landscape import Surface
from cliffs.plotting._style import COLORS


def surface_html(
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
    *,
    names: tuple[str, str, str] = ("w", "b", "error"),
    title: str = "Error surface",
    max_points: int = 90,
) -> str:
    """A page that draws the surface on a canvas: drag to turn, wheel to zoom, double click to reset.

    **Arguments**

    - `surface`: two-dimensional and finite; thinned out to at most `max_points` along each direction.
    - `paths`: for each label the two coordinates and the loss of the path's points; points off the rectangle are
      left out, with the segments to them.
    - `names`: of the three axes; `title`.

    **Returns** the page as text, about 60 kB for 90 x 90 points.

    **Raises** `ValueError` for a surface that is not two-dimensional or not finite.

    >>> axis = np.linspace(0, 1, 3)
    >>> page = surface_html(Surface((axis, axis), np.ones((3, 3)), None), {"clipped": (axis, axis, axis)})
    >>> page.startswith("<!doctype html>"), "http" in page
    (True, False)
    """
    z = np.asarray(surface.loss, float)
    if z.ndim != 2 or not np.isfinite(z).all():
        raise ValueError(f"surface must be two-dimensional and finite, got shape {z.shape}")
    keep = [np.unique(np.linspace(0, n - 1, min(n, max_points)).round().astype(int)) for n in z.shape]
    x, y = (np.asarray(a, float)[k] for a, k in zip(surface.offsets, keep))
    z = z[np.ix_(*keep)]

    def short(values):
        return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]

    lines = []
    for label, (px, py, pz) in (paths or {}).items():
        px, py, pz = (np.asarray(p, float) for p in (px, py, pz))
        outside = (px < x.min()) | (px > x.max()) | (py < y.min()) | (py > y.max())
        row = [short(np.where(outside, np.nan, p)) for p in (px, py, pz)]
        lines.append({"label": label, "color": COLORS.get(label, COLORS["accent"]), "points": list(zip(*row))})
    data = {
        "x": short(x), "y": short(y), "z": [short(row) for row in z], "paths": lines, "names": names, "title": title,
    }  # fmt: skip
    return PAGE.replace("__DATA__", json.dumps(data, separators=(",", ":")).replace("</", "<\\/"))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Error surface</title>
<style>
body{margin:0;font:14px system-ui,sans-serif;background:#fff;color:#1b1f24}
canvas{display:block;width:100vw;height:100vh;cursor:grab;touch-action:none}
#note{position:fixed;left:16px;top:12px;pointer-events:none}
#note b{font-size:16px}#note i{display:inline-block;width:18px;height:3px;margin:0 6px 3px 0}
</style>
<canvas id="view"></canvas><div id="note"></div>
<script>
const D=__DATA__;
const canvas=document.getElementById("view"),g=canvas.getContext("2d"),note=document.getElementById("note");
document.title=D.title;
const title=document.createElement("b");title.textContent=D.title;note.append(title);
for(const p of D.paths){const row=document.createElement("div"),bar=document.createElement("i");
  bar.style.background=p.color;row.append(bar,p.label);note.append(row)}
const hint=document.createElement("div");hint.textContent="drag to turn, wheel to zoom, double click to reset";
hint.style.color="#6e7781";note.append(hint);
const flat=D.z.flat(),lo=Math.min(...flat),hi=Math.max(...flat),last=a=>a[a.length-1];
const scale=(v,a,b)=>2*(v-a)/((b-a)||1)-1;
const place=(x,y,z)=>[scale(x,D.x[0],last(D.x)),scale(y,D.y[0],last(D.y)),0.6*scale(z,lo,hi)];
const viridis=[[68,1,84],[71,44,122],[59,81,139],[44,113,142],[33,144,141],[39,173,129],[92,200,99],[170,220,50],
  [253,231,37]];
function color(t,light){const s=Math.max(0,Math.min(1,t))*8,i=Math.min(7,Math.floor(s)),f=s-i;
  return"rgb("+[0,1,2].map(k=>Math.round(light*(viridis[i][k]*(1-f)+viridis[i+1][k]*f))).join()+")"}
const grid=D.x.map((x,i)=>D.y.map((y,j)=>place(x,y,D.z[i][j])));
const items=[];
for(let i=0;i+1<D.x.length;i++)for(let j=0;j+1<D.y.length;j++){
  const q=[grid[i][j],grid[i+1][j],grid[i+1][j+1],grid[i][j+1]];
  const u=[0,1,2].map(k=>q[2][k]-q[0][k]),v=[0,1,2].map(k=>q[3][k]-q[1][k]);
  const n=[u[1]*v[2]-u[2]*v[1],u[2]*v[0]-u[0]*v[2],u[0]*v[1]-u[1]*v[0]];
  const up=Math.abs(n[2])/(Math.hypot(...n)||1);
  const mean=(D.z[i][j]+D.z[i+1][j]+D.z[i+1][j+1]+D.z[i][j+1])/4;
  items.push({points:q,fill:color((mean-lo)/((hi-lo)||1),0.72+0.28*up)});
}
for(const p of D.paths)for(let i=0;i+1<p.points.length;i++){
  const a=p.points[i],b=p.points[i+1];
  if(a[0]===null||b[0]===null)continue;
  const u=place(...a),v=place(...b),n=Math.ceil(Math.hypot(u[0]-v[0],u[1]-v[1],u[2]-v[2])/0.05)||1;
  const at=t=>[0,1,2].map(k=>u[k]*(1-t)+v[k]*t+(k==2?0.01:0));
  for(let m=0;m<n;m++)items.push({points:[at(m/n),at((m+1)/n)],stroke:p.color});
}
const base=[[-1,-1],[1,-1],[1,1],[-1,1]].map(q=>[...q,-0.6]);
for(let i=0;i<4;i++)items.push({points:[base[i],base[(i+1)%4]],stroke:"#8c959f",thin:true});
const number=v=>String(Number(v.toPrecision(3)));
const start={turn:-2.0,tilt:0.5,zoom:1};let view={...start};
function draw(){
  const ratio=window.devicePixelRatio||1,W=canvas.clientWidth,H=canvas.clientHeight;
  canvas.width=W*ratio;canvas.height=H*ratio;g.setTransform(ratio,0,0,ratio,0,0);
  const c=Math.cos(view.turn),s=Math.sin(view.turn),ct=Math.cos(view.tilt),st=Math.sin(view.tilt);
  const size=Math.min(W,H)*1.08*view.zoom;
  const project=p=>{const x=c*p[0]-s*p[1],y=s*p[0]+c*p[1],depth=y*ct-p[2]*st,height=y*st+p[2]*ct,
    k=size/(4+depth);return[W/2+x*k,H*0.5-height*k,depth]};
  for(const q of items){q.at=q.points.map(project);
    q.depth=q.at.reduce((a,p)=>a+p[2],0)/q.at.length-(q.stroke&&!q.thin?0.3:0)}
  items.sort((a,b)=>b.depth-a.depth);
  for(const q of items){g.beginPath();q.at.forEach((p,i)=>i?g.lineTo(p[0],p[1]):g.moveTo(p[0],p[1]));
    if(q.fill){g.closePath();g.fillStyle=g.strokeStyle=q.fill;g.lineWidth=0.7;g.fill();g.stroke()}
    else{g.strokeStyle=q.stroke;g.lineWidth=q.thin?1:2.4;g.lineCap="round";g.stroke()}}
  g.fillStyle="#1b1f24";g.font="13px system-ui,sans-serif";g.textAlign="center";
  const write=(p,text)=>{const q=project(p);g.fillText(text,q[0],q[1])};
  const sx=s>0?-1:1,sy=c>0?-1:1;
  write([0,1.2*sy,-0.6],D.names[0]);write([1.2*sx,0,-0.6],D.names[1]);
  for(const e of[-1,1]){write([0.9*e,1.14*sy,-0.6],number(e<0?D.x[0]:last(D.x)));
    write([1.14*sx,0.9*e,-0.6],number(e<0?D.y[0]:last(D.y)))}
  const corner=[[sx,-sy],[-sx,sy]].sort((a,b)=>project([...a,0])[0]-project([...b,0])[0])[0];
  const foot=project([...corner,-0.6]),top=project([...corner,0.6]);
  g.strokeStyle="#8c959f";g.lineWidth=1;g.beginPath();g.moveTo(foot[0],foot[1]);g.lineTo(top[0],top[1]);g.stroke();
  g.textAlign="right";write([...corner.map(k=>1.05*k),0.6],number(hi));write([...corner.map(k=>1.05*k),0],D.names[2]);
  write([...corner.map(k=>1.05*k),-0.52],number(lo));
}
let held=null;
canvas.addEventListener("pointerdown",e=>{held=[e.clientX,e.clientY];canvas.setPointerCapture(e.pointerId)});
canvas.addEventListener("pointermove",e=>{if(!held)return;view.turn+=(e.clientX-held[0])*0.008;
  view.tilt=Math.max(0.02,Math.min(1.55,view.tilt+(e.clientY-held[1])*0.008));held=[e.clientX,e.clientY];
  requestAnimationFrame(draw)});
canvas.addEventListener("pointerup",()=>held=null);
canvas.addEventListener("wheel",e=>{e.preventDefault();
  view.zoom=Math.max(0.4,Math.min(6,view.zoom*Math.exp(-e.deltaY*0.001)));requestAnimationFrame(draw)},{passive:false});
canvas.addEventListener("dblclick",()=>{view={...start};draw()});
window.addEventListener("resize",draw);draw();
</script></html>
"""
