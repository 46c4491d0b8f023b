"""fastapi-users as its documentation sets it up: SQLAlchemy, database strategy, bearer transport.

Two things are not its defaults, so that the same work is compared: argon2id has our parameters (its own cost
more), and the pool has as many connections as ours.

    uvicorn --factory bench.peers.fastapi_users_app:create_app
"""

import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users.password import PasswordHelper
from fastapi_users_db_sqlalchemy.access_token import (
    SQLAlchemyAccessTokenDatabase,
    SQLAlchemyBaseAccessTokenTableUUID,
)
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from auth_manager.settings import Settings
from bench.service import default_hasher

LIFETIME = 3600


class Base(DeclarativeBase):
    """The tables."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """A person."""


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    """A session."""


class UserRead(schemas.BaseUser[uuid.UUID]):
    """What `/users/me` answers."""


class UserCreate(schemas.BaseUserCreate):
    """What registration takes."""


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    """The logic, with no hook added."""

    reset_password_token_secret = verification_token_secret = "never used here"  # noqa: S105


def create_app() -> FastAPI:
    """Build the service over PEER_DATABASE_URL (`postgresql+asyncpg://`)."""
    pool_size: int = Settings.model_fields["database_pool_size"].default
    engine = create_async_engine(os.environ["PEER_DATABASE_URL"], pool_size=pool_size, max_overflow=0)
    open_session = async_sessionmaker(engine, expire_on_commit=False)
    hasher = default_hasher()
    passwords = PasswordHelper(
        PasswordHash((Argon2Hasher(hasher.time_cost, hasher.memory_cost, hasher.parallelism),))
    )

    async def get_session() -> AsyncGenerator[AsyncSession]:
        async with open_session() as session:
            yield session

    Session = Annotated[AsyncSession, Depends(get_session)]  # noqa: N806 -- a type

    async def get_users(session: Session) -> AsyncGenerator[Any]:
        yield SQLAlchemyUserDatabase(session, User)

    async def get_tokens(session: Session) -> AsyncGenerator[Any]:
        yield SQLAlchemyAccessTokenDatabase(session, AccessToken)

    async def get_manager(
        users: Annotated[SQLAlchemyUserDatabase[User, uuid.UUID], Depends(get_users)],
    ) -> AsyncGenerator[UserManager]:
        yield UserManager(users, passwords)

    def get_strategy(
        tokens: Annotated[SQLAlchemyAccessTokenDatabase[AccessToken], Depends(get_tokens)],
    ) -> DatabaseStrategy[User, uuid.UUID, AccessToken]:
        return DatabaseStrategy(tokens, lifetime_seconds=LIFETIME)

    backend: Any = AuthenticationBackend("database", BearerTransport(tokenUrl="auth/login"), get_strategy)
    users = FastAPIUsers[User, uuid.UUID](get_manager, [backend])

    @asynccontextmanager
    async def create_tables(_app: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield

    app = FastAPI(lifespan=create_tables)
    app.include_router(users.get_auth_router(backend), prefix="/auth")
    app.include_router(users.get_register_router(UserRead, UserCreate), prefix="/auth")
    app.include_router(users.get_users_router(UserRead, schemas.BaseUserUpdate), prefix="/users")
    return app
