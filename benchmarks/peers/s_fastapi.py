import uvicorn
from core import PORT, Model
from fastapi import FastAPI, Request, Response

model = Model()
app = FastAPI()


@app.post("/")
async def infer(request: Request):
    body = model.to_bytes(await request.body())
    return Response(body, media_type="application/octet-stream")


uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error", access_log=False)
